"""The views that the dock widget "Run a model" is made of, so that they can be made one in each turn of the window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_mamba.ui.results.view import ResultsView
from napari_mamba.ui.run.views.inputs_view import InputsView
from napari_mamba.ui.run.views.model_view import ModelView
from napari_mamba.ui.run.views.options_view import OptionsView
from napari_mamba.ui.run.views.progress_view import ProgressView

if TYPE_CHECKING:
    from napari_mamba.ui.run.host import RunHost


class Parts:
    """The views, once `make` has been driven to its end.

    Parameters
    ----------
    host : RunHost
    parent : QWidget, optional
        Whose child each is at first: with it come the styles, and it goes with them where it is closed too early.
    """

    model: ModelView
    channels: InputsView
    options: OptionsView
    progress: ProgressView
    results: ResultsView

    def __init__(self, host: RunHost, parent: QWidget | None = None):
        self.host, self._parent = host, parent

    def make(self) -> Iterator[QWidget]:
        """Make one after the other; with a parent they are not shown until they are laid out."""
        session, parent = self.host.session, self._parent
        self.model = ModelView(self.host, parent)
        yield self.model
        self.channels = InputsView(session.inputs, parent)
        yield self.channels
        self.options = OptionsView(self.host, parent)
        yield self.options
        self.progress = ProgressView(session.queue, parent)
        yield self.progress
        self.results = ResultsView(session.viewer, parent)
        yield self.results
