"""Lists that take the width there is, however long their entries are."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy


def combo_box(tip: str) -> QComboBox:
    """An empty list with a tooltip; long layer names are cut off rather than widening the dock."""
    combo = QComboBox()
    combo.setToolTip(tip)
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo
