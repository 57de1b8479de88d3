"""The dock "Film": a model over every frame of a layer with time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer  # menus: napari fills it in by its type
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QGridLayout, QLabel, QSpinBox, QVBoxLayout, QWidget

from napari_mamba.engine.options import MOST_AHEAD
from napari_mamba.engine.progress.overall import SHARES
from napari_mamba.ui.film.layers import film_of
from napari_mamba.ui.film.model import FilmModel
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.run.process.engine_process import shared_engine
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.run.session import session_of
from napari_mamba.ui.widgets.docks import DockPage, open_widget
from napari_mamba.ui.widgets.forms import combo_box, row_label
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.work import Work, WorkRow

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.io.moving.film import Film

NAME = "Film"
STAGES = {"network": "Going through the film: frame"}
make_engine = shared_engine
"""Replaced by tests."""


class FilmWidget(DockPage):
    """A model over a film.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.library = session_of(napari_viewer).library
        self.model = FilmModel(napari_viewer, list(self.library.bundles))
        self.work, self.engine = Work(self), make_engine()
        self.film = combo_box("An image layer whose first axis is time: pictures or volumes, grey or in colour")
        self.bundle = combo_box("Models of films see several frames at once; others see each frame by itself")
        self.ahead = QSpinBox()
        self.ahead.setRange(0, MOST_AHEAD)
        self.ahead.setSpecialValueText("as many as the film has")
        self.ahead.setToolTip("How many frames are predicted after the last one; the later, the less they are worth")
        self.row = WorkRow(
            self.work, "Run over the film", STAGES, SHARES, "Run the model over every frame; the answer is a film, too"
        )
        self.notice = Notice(napari_viewer)
        grid = QGridLayout()
        self._ahead_name = row_label("Frames ahead")
        rows = ((row_label("Film"), self.film), (row_label("Model"), self.bundle), (self._ahead_name, self.ahead))
        for row, (label, widget) in enumerate(rows):
            label.setBuddy(widget)
            widget.setAccessibleName(label.text())
            grid.addWidget(label, row, 0)
            grid.addWidget(widget, row, 1)
        grid.setColumnStretch(1, 1)
        hint = QLabel("Not for clinical use: look at the result of every frame.")
        hint.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addLayout(grid)
        for one in (self.row, self.notice, hint):
            layout.addWidget(one)
        layout.addStretch(1)
        self.setMinimumWidth(320)
        self._filling = False
        self._asked_of: tuple[Any, Any] | None = None
        self.film.currentIndexChanged.connect(self._on_choice)
        self.bundle.currentIndexChanged.connect(self._on_choice)
        self.ahead.valueChanged.connect(self._on_ahead)
        self.library.changed.connect(self._on_library)
        self.row.asked.connect(self.run)
        self.work.ended.connect(self._on_ended)
        self.model.changed.connect(self.draw)
        self.draw()

    def sizeHint(self) -> QSize:
        """Wide enough for names."""
        return QSize(380, 260)

    def draw(self, *_: Any) -> None:
        """Show the model as it is."""
        model, self._filling = self.model, True
        for combo, entries, chosen in (
            (self.film, [(one.name, one) for one in model.films], model.layer),
            (self.bundle, [(_named(one), one) for one in model.bundles], model.bundle),
        ):
            combo.clear()
            for text, value in entries:
                combo.addItem(text, value)
            values = [value for _, value in entries]
            combo.setCurrentIndex(values.index(chosen) if chosen in values else -1)
        self._filling = False
        for one in (self._ahead_name, self.ahead):
            one.setVisible(model.predicts)
        self.row.set_ready(not model.problem, model.problem)
        self.notice.say(model.message or model.problem, model.kind if model.message else "hint")

    def _on_choice(self, *_: Any) -> None:
        if not self._filling:
            self.model.layer, self.model.bundle = self.film.currentData(), self.bundle.currentData()
            self.model.say("")

    def _on_ahead(self, frames: int) -> None:
        self.model.ahead = frames

    def _on_library(self) -> None:
        self.model.offer(self.library.bundles)

    def run(self) -> None:
        """Run the chosen model over the chosen film."""
        from napari_mamba.engine.options import RunOptions
        from napari_mamba.errors import NapariMambaError

        layer, bundle, chosen = self.model.layer, self.model.bundle, preferences()
        if layer is None or bundle is None:
            return
        try:
            frames = in_memory(film_of(layer))
            ahead = (self.model.ahead or None) if self.model.predicts else None
            options = RunOptions(device=chosen.device, precision=chosen.precision, ahead=ahead)
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), "error")
            return
        self.model.say("")
        self._asked_of = (layer, bundle)
        arguments, work = (*frames, str(bundle.path), options), self.engine.work
        self.row.begin(lambda cancel: work("film", arguments, cancel))

    def _on_ended(self, outcome: Any) -> None:
        if not self._left and self._asked_of is not None:
            self.model.end(outcome, *self._asked_of)

    def leave(self) -> None:
        """Stop listening to the viewer."""
        self.work.stop()
        self.model.close()
        self.library.changed.disconnect(self._on_library)
        self.model.changed.disconnect(self.draw)


def in_memory(film: Film) -> tuple[Any, Any, Any]:
    """What goes through the pipe to the engine's process: all frames, the grid of one, the times."""
    import numpy as np

    first = film.frame(0)
    data = np.empty((film.count, *first.data.shape), first.data.dtype)
    for t in range(film.count):
        data[t] = film.frame(t).data
    return data, first.with_data(np.asarray(first.data), first.channel_names), film.times


def _named(bundle: Any) -> str:
    return f"{bundle.title} ({bundle.tile.frames} frames at once)" if bundle.tile.frames else bundle.title


def open_film_dock(viewer: Viewer) -> FilmWidget:
    """Layers, Segment: the dock, or the one that is open brought to the front."""
    return open_widget(viewer, FilmWidget, NAME)
