"""Rows of a form: a name, and a list that takes the width there is, however long its entries are."""

from __future__ import annotations

import re

from qtpy.QtWidgets import QComboBox, QLabel, QSizePolicy, QWidget

LABEL_WIDTH = 64  # pixels; the forms of the widget are several, and their lists should start at one line


def combo_box(tip: str, name: str = "") -> QComboBox:
    """An empty list with a tooltip; long layer names are cut off rather than widening the dock.

    Without a `name` the tooltip's first clause is what a screen reader says.
    """
    combo = QComboBox()
    explain(combo, tip, name or re.split("[:.,;]", tip)[0])
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


def explain(widget: QWidget, tip: str, name: str = "") -> None:
    """Say what a control does, and what a screen reader calls it; a button's text is its name already."""
    widget.setToolTip(tip)
    if name:
        widget.setAccessibleName(name)


def row_label(text: str) -> QLabel:
    """The name of a row; a long one is wrapped."""
    label = QLabel(text)
    label.setMinimumWidth(LABEL_WIDTH)
    label.setMaximumWidth(2 * LABEL_WIDTH)
    label.setWordWrap(len(text) > 12)
    return label
