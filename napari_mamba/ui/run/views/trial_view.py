"""The strength of a restoration as a slider, and one slice that shows it at once, before the whole image is run."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QSignalBlocker, Qt, Slot
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.run.choice.trial import MOST, Slab, Trial, percent_of, placed, slab, suits
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.work import Work, WorkRow

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_mamba.ui.run.host import RunHost
    from napari_mamba.ui.run.process.outcome import Outcome

STAGES = {"checking": "Looking at the slices", "warming up": "Loading the model", "network": "Restoring the slice"}
SHARES = {"warming up": 0.2, "network": 0.8}
NAME = "tried on this slice"
TIP = "Restores the slice that is shown, in a layer of its own: move the slider and look"


class TrialView(QWidget):
    """Shown for bundles that restore an image on its own grid."""

    def __init__(self, host: RunHost, parent: QWidget | None = None):
        super().__init__(parent)
        self._host, session = host, host.session
        self.session, self.trial, self.layer = session, Trial(), None
        self._slab: Slab | None = None
        self._of: Any = None
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, MOST)
        self.slider.setPageStep(10)
        self.slider.setAccessibleName("Strength of the restoration in percent")
        self.slider.setToolTip("How much of the model's change is made: 0 is the image, 100 the model's answer")
        self.value = QLabel()
        self.value.setMinimumWidth(self.fontMetrics().horizontalAdvance("150% "))
        self.work = Work(self)
        self.row = WorkRow(self.work, "Try on this slice", STAGES, SHARES, TIP)
        self.notice = Notice(session.viewer)
        top = QHBoxLayout()
        top.addWidget(QLabel("Strength"))
        top.addWidget(self.slider, 1)
        top.addWidget(self.value)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.row)
        layout.addWidget(self.notice)
        self.slider.valueChanged.connect(self._on_slider)
        self.row.asked.connect(self.start)
        self.work.ended.connect(self._on_ended)
        session.options.events.strength.connect(self._on_strength)
        session.bundle_changed.connect(self._on_bundle)
        self._on_strength()
        self._on_bundle()

    @property
    def stops(self) -> list[QWidget]:
        """What Tab goes through, from the top to the bottom."""
        return [self.slider, self.row.start_button, self.row.stop_button]

    def disconnect_from_model(self) -> None:
        """The dock is closed: what was tried goes with it."""
        self.work.stop()
        self.session.options.events.strength.disconnect(self._on_strength)
        self.session.bundle_changed.disconnect(self._on_bundle)
        self._remove()

    @Slot()
    def start(self) -> None:
        """Restore the slices around the one that is shown, once."""
        try:
            runs = self.session.inputs.runs
            if len(runs) != 1 or self.session.bundle is None:
                self.notice.say("Choose one image first.", "hint")
                return
            layer = runs[0][0]
            volume, place = layers_to_volume(runs[0], self.session.frame)
            self._slab, self._of = slab(self.session.viewer, layer, volume, place.order), layer
            part = self._slab.region.of(volume)
            part = part.with_data(np.ascontiguousarray(part.data), part.channel_names)
            options, bundle = self.session.options.run_options(self.session.bundle, place.order), self.session.bundle
        except NapariMambaError as error:
            self.notice.say(sentence(str(error)), "error")
            return
        options = replace(options, strength=1.0, uncertainty=False, residual=False, mirror=False)
        self.trial.given = self._slab.slice_of(part)
        self.notice.say("")
        self.row.begin(lambda cancel: self._host.engine.run(part, bundle, options, cancel))

    @Slot(object)
    def _on_ended(self, outcome: Outcome) -> None:
        if outcome.error:
            self.notice.say(outcome.error, "error")
        elif not outcome.cancelled and outcome.result is not None and self._slab is not None:
            assert outcome.result.image is not None
            self.trial.restored = self._slab.slice_of(outcome.result.image)
            self.draw()

    def draw(self) -> None:
        """Show the slice at the present strength, in its place."""
        if self.trial.restored is None or self.trial.given is None or self._slab is None:
            return
        shown = np.expand_dims(self.trial.shown().astype(np.float32), self._slab.layer_axis)
        viewer = self.session.viewer
        if self.layer is not None and self.layer in viewer.layers and self.layer.data.shape == shown.shape:
            self.layer.data = shown
            self.layer.affine = placed(self._of, self._slab.layer_axis, self._slab.layer_index)
            return
        self._remove()
        active = viewer.layers.selection.active
        self.layer = viewer.add_image(
            shown,
            name=f"{self._of.name}: {NAME}",
            affine=placed(self._of, self._slab.layer_axis, self._slab.layer_index),
            units=self._of.units,
            colormap=self._of.colormap,
            contrast_limits=self._of.contrast_limits,
            metadata={KEY: {"role": "map"}},
        )
        viewer.layers.selection.active = active  # what is chosen stays chosen

    def _remove(self) -> None:
        layer: Image | None = self.layer
        self.layer = None
        with suppress(ValueError):  # taken away by hand
            if layer is not None:
                self.session.viewer.layers.remove(layer)

    def _on_slider(self, value: int) -> None:
        self.session.options.strength = "" if value == 100 else str(value)

    def _on_strength(self, *_: Any) -> None:
        self.trial.percent = percent_of(self.session.options.strength)
        blocker = QSignalBlocker(self.slider)
        self.slider.setValue(self.trial.percent)
        del blocker
        self.value.setText(f"{self.trial.percent}%")
        self.draw()

    def _on_bundle(self) -> None:
        self.work.stop()
        self.trial.given = self.trial.restored = self._slab = None
        self._remove()
        self.notice.say("")
        self.setVisible(suits(self.session.bundle))
