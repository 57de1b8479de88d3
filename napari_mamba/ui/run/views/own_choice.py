"""A model and its layers for a window that has a choice of its own, apart from what is chosen in "Run a model"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mamba.ui.bundles.library import Library
from napari_mamba.ui.bundles.opening import BundleOpener, open_menu
from napari_mamba.ui.run.choice.inputs import Inputs
from napari_mamba.ui.run.process.engine_process import EngineThread
from napari_mamba.ui.run.session import DEFAULT, itself
from napari_mamba.ui.run.views.inputs_view import InputsView
from napari_mamba.ui.run.views.model_view import DISCLAIMER, summary
from napari_mamba.ui.widgets.forms import combo_box

__all__ = ["DISCLAIMER", "ChannelsBox", "ModelBox"]

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle, Channel


class ModelBox(QWidget):
    """A list of the bundles at hand, a button that opens others, and a summary of the chosen one.

    Signals
    -------
    changed
        Another bundle is chosen.
    failed : str
        A bundle could not be opened: one sentence.
    """

    changed = Signal()
    failed = Signal(str)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.library = Library()
        self.combo = combo_box("The model. Models are bundles: a network with its weights, classes and card.")
        self.combo.setAccessibleName("Model")
        self.opener = BundleOpener(self.library, EngineThread(), self)
        self.more = QPushButton("Open…")
        self.more.setToolTip("Open a bundle, or import a checkpoint of nnU-Net, MONAI or a file of weights")
        self.more.setMenu(open_menu(self.opener, self.more))
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.combo, 1)
        row.addWidget(self.more)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.summary)
        self._fill(self.library.find(DEFAULT))
        self.combo.currentIndexChanged.connect(self._on_chosen)
        self.opener.opened.connect(self._on_opened)
        self.opener.failed.connect(self.failed)
        self._on_chosen()

    @property
    def bundle(self) -> Bundle | None:
        """The chosen bundle."""
        return self.combo.currentData()

    def open(self, path: str) -> None:
        """Open or import what lies there, and choose it; or say what is wrong."""
        self.opener.open(path)

    def _fill(self, chosen: Bundle | None) -> None:
        blocker = QSignalBlocker(self.combo)
        self.combo.clear()
        for bundle in self.library.bundles:
            self.combo.addItem(bundle.name, bundle)
        if chosen in self.library.bundles:
            self.combo.setCurrentIndex(self.library.bundles.index(chosen))
        del blocker

    def _on_opened(self, bundle: Bundle) -> None:
        self._fill(bundle)
        self._on_chosen()

    def _on_chosen(self) -> None:
        self.summary.setText(summary(self.bundle))
        self.changed.emit()


class ChannelsBox(InputsView):
    """One list of layers a channel.

    Signals
    -------
    changed
        Another layer is chosen, or there are other layers to choose from.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(Inputs(itself(viewer)), parent)
        self.inputs.changed.connect(self._relay)

    @property
    def layers(self) -> list[Layer | None]:
        """The chosen layer of each channel; "the selected layer" is the one that is selected now."""
        return next(iter(self.inputs.runs), [None] * len(self.combos))

    def set_channels(self, channels: Sequence[Channel]) -> None:
        """One row a channel; what is chosen stays."""
        self.inputs.set_channels(channels)

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer."""
        self.disconnect_from_model()
        self.inputs.changed.disconnect(self._relay, missing_ok=True)
        self.inputs.close()

    def _relay(self) -> None:
        self.changed.emit()
