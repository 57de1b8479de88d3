"""Rows of a form: a name, and a list that takes the width there is, however long its entries are."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QLabel, QSizePolicy

LABEL_WIDTH = 64  # pixels; the forms of the widget are several, and their lists should start at one line


def combo_box(tip: str) -> QComboBox:
    """An empty list with a tooltip; long layer names are cut off rather than widening the dock."""
    combo = QComboBox()
    combo.setToolTip(tip)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


def row_label(text: str) -> QLabel:
    """The name of a row; a long one is wrapped."""
    label = QLabel(text)
    label.setMinimumWidth(LABEL_WIDTH)
    label.setMaximumWidth(2 * LABEL_WIDTH)
    label.setWordWrap(len(text) > 12)
    return label
