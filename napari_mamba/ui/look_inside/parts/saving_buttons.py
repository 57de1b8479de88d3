"""Buttons that save the view and the walk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Slot
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.look_inside import saving
from napari_mamba.ui.look_inside.model import LookModel
from napari_mamba.ui.look_inside.sentences import sentence

if TYPE_CHECKING:
    from napari.components import ViewerModel


class SavingButtons(QWidget):
    """Asks where to save to, saves, and says so.

    Parameters
    ----------
    title : callable
        What is written below an SVG.
    follow : callable
        Brings the marker's slice onto the screen.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        model: LookModel,
        title: Callable[[], str],
        follow: Callable[[], object],
        parent: QWidget | None = None,
    ):
        super().__init__(parent)
        self.viewer, self.model, self.title, self.follow = viewer, model, title, follow
        self.view = QPushButton("Save view…")
        self.view.setToolTip("The picture as PNG or SVG. Maps are layers: File ▸ Save Selected Layers writes them.")
        self.walk = QPushButton("Save walk…")
        self.walk.setToolTip("The marker's way along the path as GIF or MP4")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.view)
        row.addWidget(self.walk)
        self.view.clicked.connect(self._ask_view)
        self.walk.clicked.connect(self._ask_walk)

    @Slot()
    def _ask_view(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the view", "look.png", "Pictures (*.png *.svg)")
        if path:
            self.save_view(Path(path))

    @Slot()
    def _ask_walk(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the walk", "walk.gif", "Animations (*.gif *.mp4)")
        if path:
            self.save_walk(Path(path))

    def save_view(self, path: Path) -> None:
        """Write the canvas as PNG or SVG."""
        self._saved(lambda: saving.save_view(self.viewer, path, self.title()))  # type: ignore[arg-type]

    def save_walk(self, path: Path) -> None:
        """Write the walk as GIF or MP4."""
        self._saved(lambda: saving.save_walk(self.viewer, self.model, path, follow=self.follow))  # type: ignore[arg-type]

    def _saved(self, save: Callable[[], Path]) -> None:
        try:
            self.model.say(f"Saved {save()}.")
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), wrong=True)
