"""The page "Classes": the class list of a labels layer, and the tools that correct a class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QLineEdit,
    QMenu,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.measure import ClassStatistics
from napari_mamba.ui.results.classes.correct_view import CorrectBox
from napari_mamba.ui.results.classes.link import ClassLink
from napari_mamba.ui.results.classes.model import ClassList
from napari_mamba.ui.results.classes.record import origin_of
from napari_mamba.ui.results.classes.table import MEAN, ClassTable
from napari_mamba.ui.results.parts import LayerCombo, small_button
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.theme import Notice, show_when_empty

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

NOTHING = "There is no labels layer yet: run a segmentation model, open a label map, or add a labels layer."


class ClassesView(QWidget):
    """Classes of the chosen labels layer.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.model = ClassList()
        self.link: ClassLink | None = None
        self.layers = LayerCombo(viewer, lambda layer: type(layer).__name__ == "Labels", "Labels layer")
        self.origin = QLabel()
        self.search = QLineEdit()
        self.table = ClassTable(self.model)
        self.outline = small_button("Outline", "Draw outlines instead of areas", checkable=True)
        self.all_shown = small_button("All", "Show all classes")
        self.go = small_button("Go to", "Go to the middle of the chosen class (Enter or a double click in the list)")
        self.export = small_button("CSV", "Save the table, or copy it")
        self.absent = small_button("", "Classes of the model that these labels do not hold", checkable=True)
        self.notice = Notice(self.viewer)
        self.correct = CorrectBox()
        self.counter = Latest(self._count, self._on_counted, self._on_failed, wait_ms=150, parent=self)
        self._build()
        self.layers.chosen.connect(self._on_layer)
        self._on_layer()

    def _build(self) -> None:
        show_when_empty(self.search, "Search a class", self.viewer)
        self.search.setAccessibleName("Search a class")
        self.search.setToolTip("Lists only classes with this in their name")
        self.search.setClearButtonEnabled(True)
        self.origin.setWordWrap(True)
        menu = QMenu(self)
        menu.addAction("Save as CSV…", self.save)
        menu.addAction("Copy for a spreadsheet", self.copy)
        self.export.setMenu(menu)
        tools = QHBoxLayout()
        tools.addWidget(self.search, 1)
        for button in (self.all_shown, self.outline, self.go, self.export):
            tools.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addWidget(self.layers)
        layout.addWidget(self.origin)
        layout.addLayout(tools)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.absent)
        layout.addWidget(self.notice)
        layout.addWidget(self.correct)
        self.search.textChanged.connect(lambda text: setattr(self.model, "search", text))
        self.outline.toggled.connect(lambda on: setattr(self.model, "outlined", on))
        self.absent.toggled.connect(lambda on: setattr(self.model, "absent_shown", on))
        self.all_shown.clicked.connect(lambda: self.model.show_all())
        self.go.clicked.connect(self._on_go)
        self.table.jump_asked.connect(self.jump)
        self.table.rename_asked.connect(self.rename)
        self.correct.said.connect(self.notice.say)
        self.correct.failed.connect(self.notice.fail)
        self.table.setMinimumHeight(150)

    # ---- the layer

    def show_layer(self, layer: Labels) -> None:
        """Choose a labels layer."""
        self.layers.layer = layer

    def _on_layer(self) -> None:
        layer = self.layers.layer
        if self.link is not None and self.link.layer is layer:
            return
        self._let_go()
        self.notice.say("")
        if layer is not None:
            try:
                self.link = ClassLink(self.viewer, layer, ClassList(absent_shown=self.absent.isChecked()))
            except InputError as error:
                self.notice.fail(str(error))
        elif not self.layers.count():
            self.notice.say(NOTHING)
        self._use(self.link.model if self.link is not None else ClassList())
        self.correct.set_link(self.link)
        if self.link is not None:
            self.link.stale.connect(self.counter.ask)
            self.link.refused.connect(self.notice.say)
            self.counter.ask()

    def _let_go(self) -> None:
        self.counter.stop()
        if self.link is not None:
            self.link.stale.disconnect(self.counter.ask)
            self.link.refused.disconnect(self.notice.say)
            self.link.disconnect()
        self.link = None

    def _use(self, model: ClassList) -> None:
        self.model.events.disconnect(self._on_model)
        self.model = model
        model.events.connect(self._on_model)
        self.table.set_list(model)
        self.search.clear()
        self._on_model()

    def _on_model(self, *_: Any) -> None:
        self.table.fill()
        absent, link = self.model.absent, self.link
        self.outline.setChecked(self.model.outlined)
        self.absent.setVisible(absent > 0 and bool(self.model.statistics))
        self.absent.setText(f"{'Hide' if self.model.absent_shown else 'Show'} {absent} without voxels")
        self.all_shown.setEnabled(bool(self.model.hidden) or self.model.solo is not None)
        self.go.setEnabled(self.model.selected in self.model.statistics)
        self.export.setEnabled(bool(self.model.classes))
        self._show_origin()
        self.correct.setEnabled(link is not None)
        self.correct.show_class()

    def _show_origin(self) -> None:
        text = origin_of(self.link.layer) if self.link is not None else ""
        image = self.link.image if self.link is not None else None
        self.origin.setText(text)
        self.origin.setVisible(bool(text))
        mean = "There is no image on this grid" if image is None else f"Mean intensity of '{image.name}'. Click to sort"
        self.table.horizontalHeaderItem(MEAN).setToolTip(mean)

    # ---- numbers

    def _count(self) -> Any:
        link = self.link
        return link, (link.count() if link is not None else {})

    def _on_counted(self, answer: tuple[ClassLink | None, Mapping[int, ClassStatistics]]) -> None:
        link, statistics = answer
        if link is not None and link is self.link:
            link.take(statistics)
            self._show_origin()

    def _on_failed(self, error: Exception) -> None:
        self.notice.fail(f"the classes could not be counted: {error}")

    # ---- actions

    def jump(self, index: int) -> None:
        """Go to the middle of a class."""
        if self.link is None:
            return
        try:
            self.link.jump_to(index)
        except NapariMambaError as error:
            self.notice.fail(str(error))

    def _on_go(self) -> None:
        if self.model.selected is not None:
            self.jump(self.model.selected)

    def rename(self, index: int) -> None:
        """Ask for another name of a class."""
        before = next((c.name for c in self.model.classes if c.index == index), "")
        name, accepted = QInputDialog.getText(self, "Rename a class", "Name", text=before)
        if accepted:
            self.model.rename(index, name)

    def save(self) -> None:
        """Ask for a file and write the table into it."""
        name = f"{self.link.layer.name if self.link else 'classes'}.csv"
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", name, "Tables (*.csv)")
        if path:
            self.write(Path(path))

    def write(self, path: Path) -> None:
        """Write the table as comma-separated text."""
        path = path if path.suffix else path.with_suffix(".csv")
        try:
            path.write_text(self.model.csv(), encoding="utf-8")
        except OSError as error:
            self.notice.fail(f"cannot be written ({error.strerror}): {path}")
        else:
            self.notice.say(f"saved as {path.name}")

    def copy(self) -> None:
        """Put the table on the clipboard, with tabs, as spreadsheets paste it."""
        import csv

        rows = list(csv.reader(self.model.csv().splitlines()))
        QApplication.clipboard().setText("\n".join("\t".join(row) for row in rows))
        self.notice.say("copied")

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self._let_go()
        self.layers.disconnect_from_viewer()
