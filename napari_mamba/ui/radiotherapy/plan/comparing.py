"""Two doses against each other: their difference as a layer, and the gamma index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.radiotherapy.comparison import HIGHEST
from napari_mamba.ui.layers import KEY, volume_to_layers
from napari_mamba.ui.results.maps.look import map_look, note_measure, signed_look
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.radiotherapy.comparison import Gamma
    from napari_mamba.ui.radiotherapy.plan.review import PlanReview
    from napari_mamba.volume import Volume


class CompareBox(QWidget):
    """Buttons that compare the two doses of a plan.

    Parameters
    ----------
    viewer : napari viewer
    model : PlanReview

    Signals
    -------
    added : layer
        One that compares the two.
    """

    added = Signal(object)

    def __init__(self, viewer: ViewerModel, model: PlanReview):
        super().__init__()
        self.viewer, self.model = viewer, model
        self.difference = QPushButton("Difference A − B")
        self.gamma = QPushButton("Gamma index")
        self.percent, self.distance = _spin(3.0, " %", "of the highest dose of B"), _spin(3.0, " mm", "distance")
        self.notice = Notice(viewer)
        self.worker = Latest(self._compute, self._on_gamma, self._on_failed, wait_ms=0, parent=self)
        self._of: Any = None
        self.difference.setToolTip("Add a layer: red where A has more Gy, blue where it has less")
        self.gamma.setToolTip("Which voxels of B above 10% of its maximum A agrees with, within the two tolerances")
        row = QHBoxLayout()
        for widget in (self.gamma, self.percent, self.distance):
            row.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.difference)
        layout.addLayout(row)
        layout.addWidget(self.notice)
        self.difference.clicked.connect(self.add_difference)
        self.gamma.clicked.connect(self.ask_gamma)
        self.refresh()

    def refresh(self) -> None:
        """Follow the choice of doses."""
        two = self.model.other is not None and self.model.dose is not None and self.model.other is not self.model.dose
        for button in (self.difference, self.gamma):
            button.setEnabled(two)
        if self._of != (self.model.dose, self.model.other):
            self.worker.stop()
            self.notice.say("" if two else "Choose a second dose, B: the clinical one beside a predicted one, say.")
        self._of = (self.model.dose, self.model.other)

    def add_difference(self) -> None:
        """Add the layer of A minus B."""
        try:
            found = self.model.difference()
        except NapariMambaError as error:
            self.notice.fail(str(error))
            return
        data = np.asarray(found.data[0])
        self._add(found, signed_look(data), "Gy, A minus B")
        self.notice.say(f"mean difference {data.mean():+.2f} Gy, largest {np.abs(data).max():.1f} Gy")

    def ask_gamma(self) -> None:
        """Compute the gamma index in a thread, and add its layer."""
        self.notice.say("computing the gamma index…")
        self.gamma.setEnabled(False)
        self.worker.ask()

    def _compute(self) -> Gamma:
        return self.model.gamma(self.percent.value(), self.distance.value())

    def _on_gamma(self, found: Gamma) -> None:
        self.refresh()
        self.notice.say(
            f"{found.pass_rate:.1f}% pass gamma at {found.percent:g}% and {found.distance:g} mm, where B has more than "
            f"{found.cutoff:g}% of its maximum"
        )
        from napari_mamba.ui.radiotherapy.layers import dose_of

        reference = dose_of(self.model.other)
        values = np.nan_to_num(found.index, nan=0.0).astype(np.float32)
        named = f"gamma {found.percent:g}% {found.distance:g} mm"
        self._add(
            reference.with_data(values[np.newaxis], name=named), map_look(HIGHEST), "gamma index, 1 and less pass"
        )

    def _on_failed(self, error: Exception) -> None:
        self.refresh()
        known = isinstance(error, NapariMambaError)
        self.notice.fail(str(error) if known else f"could not be computed: {error}")

    def _add(self, volume: Volume, look: dict[str, Any], measures: str) -> None:
        from napari.layers import Image

        data, keywords, _ = volume_to_layers(volume)[0]
        record = {**keywords["metadata"][KEY], "role": "map"}
        layer = self.viewer.add_layer(Image(data, **{**keywords, **look, "metadata": {KEY: record}}))
        note_measure(layer, measures)
        self.added.emit(layer)

    def stop(self) -> None:
        """Drop what is on its way."""
        self.worker.stop()


def _spin(value: float, suffix: str, tip: str) -> QDoubleSpinBox:
    spin = QDoubleSpinBox()
    spin.setRange(0.1, 20)
    spin.setDecimals(1)
    spin.setValue(value)
    spin.setSuffix(suffix)
    spin.setToolTip(tip)
    spin.setAccessibleName(tip)
    return spin
