"""What is looked into: an earlier run, or a model and an image of one's own choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Signal, Slot
from qtpy.QtWidgets import QComboBox, QPushButton, QVBoxLayout, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.look_inside.model import LookModel
from napari_mamba.ui.look_inside.runs import EarlierRun, earlier_runs
from napari_mamba.ui.look_inside.sentences import sentence
from napari_mamba.ui.run.views.own_choice import ChannelsBox, ModelBox
from napari_mamba.ui.widgets.forms import combo_box

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.bundles import Bundle

NO_IMAGE = "Open an image first, and choose the model that reads it."
OWN_CHOICE = "No run: choose below"


class OpeningBox(QWidget):
    """Lists of runs, models and layers, and the button that opens them.

    Signals
    -------
    chosen
        Another model is chosen.
    opened : Volume, Placement, Bundle
        These are to be looked into.
    """

    chosen = Signal()
    opened = Signal(object, object, object)

    def __init__(self, viewer: ViewerModel, model: LookModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer, self.model = viewer, model
        self.runs: QComboBox = combo_box("A run whose result lies in the viewer: its model and image are taken")
        self.models = ModelBox()
        self.models.summary.hide()
        self.channels = ChannelsBox(viewer)
        self.button = QPushButton("Look inside")
        self.button.setToolTip("Send the image through the model once and listen to its scans")
        self.untouched = True
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.runs, self.models, self.channels, self.button):
            column.addWidget(part)
        self.runs.activated.connect(self._on_run)
        self.models.changed.connect(self._on_model)
        self.models.combo.activated.connect(self._on_touched)
        self.models.opener.opened.connect(self._on_touched)
        self.models.failed.connect(lambda text: model.say(sentence(text), wrong=True))
        self.channels.changed.connect(self.refresh)
        self.button.clicked.connect(self.open)
        for event in self._of_layers():
            event.connect(self._on_layers)
        self._on_layers()
        self._on_model()

    @property
    def bundle(self) -> Bundle | None:
        """The chosen model."""
        return self.models.bundle

    def leave(self) -> None:
        """Stop listening to the viewer."""
        self.channels.disconnect_from_viewer()
        for event in self._of_layers():
            event.disconnect(self._on_layers)

    def refresh(self) -> None:
        """Whether the button can be pressed; and a sentence where there is no image."""
        layers = self.channels.layers
        ready = bool(layers) and all(layer is not None for layer in layers)
        self.button.setEnabled(ready and self.bundle is not None and not self.model.busy)
        if not ready and not self.model.message:
            self.model.say(NO_IMAGE)
        elif ready and self.model.message == NO_IMAGE:
            self.model.say("")

    @Slot()
    def open(self) -> None:
        """Open the chosen model on the chosen image."""
        self.untouched = False
        layers = [layer for layer in self.channels.layers if layer is not None]
        if self.bundle is None or not layers:
            self.model.say(NO_IMAGE)
            return
        try:
            volume, place = layers_to_volume(layers)
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), wrong=True)
            return
        self.opened.emit(volume, place, self.bundle)

    def choose_run(self, run: EarlierRun) -> None:
        """Take an earlier run's model and layers, and open it."""
        bundle = self._take(run)
        if bundle is None:
            self.model.say(f"{run.bundle} is not among the models any more: open it with Open… first.", wrong=True)
            return
        self.open()
        if run.version and bundle.version != run.version and not self.model.wrong:
            self.model.say(f"The run was of version {run.version}; this is {bundle.version}.")

    def _take(self, run: EarlierRun) -> Bundle | None:
        """Choose an earlier run's model and layers."""
        bundles = self.models.library.bundles
        bundle = next((one for one in bundles if one.name == run.bundle), None)
        if bundle is None:
            return None
        self.models.combo.setCurrentIndex(bundles.index(bundle))
        for channel, name in enumerate(run.sources[: len(bundle.channels)]):
            layer = next((one for one in self.viewer.layers if one.name == name), None)
            if layer is not None:
                self.channels.inputs.choose(channel, layer)
        return bundle

    def _of_layers(self) -> tuple[Any, ...]:
        events = self.viewer.layers.events
        return events.inserted, events.removed, events.renamed

    def _on_layers(self, *_: Any) -> None:
        kept, blocker = self.runs.currentData(), QSignalBlocker(self.runs)
        self.runs.clear()
        self.runs.addItem(OWN_CHOICE, None)
        for run in earlier_runs(self.viewer.layers):
            self.runs.addItem(run.title, run)
        found = next((i for i in range(self.runs.count()) if self.runs.itemData(i) == kept), 0)
        latest = self.runs.itemData(1) if self.untouched and self.runs.count() > 1 else None
        self.runs.setCurrentIndex(found if latest is None or self._take(latest) is None else 1)
        self.runs.setVisible(self.runs.count() > 1)
        del blocker

    def _on_touched(self, *_: Any) -> None:
        """What the user chooses stays; until then the latest run is what is offered."""
        self.untouched = False

    @Slot(int)
    def _on_run(self, index: int) -> None:
        self.untouched = False
        run = self.runs.itemData(index)
        if run is not None:
            self.choose_run(run)

    def _on_model(self) -> None:
        self.channels.set_channels(self.bundle.channels if self.bundle else ())
        self.refresh()
        self.chosen.emit()
