"""The dock "Results": classes, comparison, maps and views of what lies in the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer  # menus: napari fills it in by its type
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_mamba.ui.results.classes.link import source_of
from napari_mamba.ui.results.classes.view import ClassesView
from napari_mamba.ui.results.compare.view import CompareView
from napari_mamba.ui.results.maps.scores import scores_of
from napari_mamba.ui.results.maps.view import MapsView
from napari_mamba.ui.results.space.view import SpaceView
from napari_mamba.ui.widgets.docks import OwnDock, bring_to_front, name_of_dock

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Result

CLASSES, COMPARE, MAPS, VIEW = range(4)
NAME = "Results"


class ResultsPanel(QWidget):
    """What is in the results, whoever made them: any labels, any two layers.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.classes = ClassesView(napari_viewer)
        self.compare = CompareView(napari_viewer)
        self.maps = MapsView(napari_viewer)
        self.space = SpaceView(napari_viewer)
        self.tabs = QTabWidget()
        self.tabs.setUsesScrollButtons(False)
        for name, page in (
            ("Classes", self.classes),
            ("Compare", self.compare),
            ("Maps", self.maps),
            ("View", self.space),
        ):
            self.tabs.addTab(_scrolled(page), name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tabs)
        self.setMinimumWidth(340)
        OwnDock(self)
        self._left = False

    def sizeHint(self) -> QSize:
        """Wide enough for names of three words beside their numbers."""
        return QSize(430, 640)

    def show_result(self, result: Result, bundle: Bundle, layer: Layer | None) -> None:
        """Turn to what a run has brought.

        Parameters
        ----------
        result : Result
        bundle : Bundle
        layer : Layer or None
            The layer that `add_result` gave.
        """
        if result.scores is not None:
            metrics: Any = bundle.metrics
            self.maps.show_scores(scores_of(result.scores, metrics, f"{bundle.title} ({bundle.name})"))
            self.tabs.setCurrentIndex(MAPS)
        elif result.labels is not None and layer is not None:
            self.classes.show_layer(layer)  # type: ignore[arg-type]
            self.tabs.setCurrentIndex(CLASSES)
        elif layer is not None:
            source = source_of(self.viewer, layer)
            if source is not None:
                self.compare.choose(source, layer)
            self.tabs.setCurrentIndex(COMPARE)

    def show_beside(self, source: Layer, layer: Layer) -> None:
        """Show a result beside its source."""
        self.compare.choose(source, layer)
        self.compare.show_way("beside")
        self.tabs.setCurrentIndex(COMPARE)

    def event(self, event: QEvent) -> bool:
        """A panel that is taken out of its window leaves no comparison, letters or callbacks behind."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        """The same when it is closed as a window of its own."""
        self._leave()
        super().closeEvent(event)

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            for page in (self.classes, self.compare, self.maps, self.space):
                page.disconnect_from_viewer()


def open_panel(viewer: Viewer, page: int | None = None) -> ResultsPanel:
    """Open the panel, or bring the one that is open to the front."""
    panel = next((w for w in viewer.window.dock_widgets.values() if isinstance(w, ResultsPanel)), None)
    if panel is None:
        panel = ResultsPanel(viewer)
        viewer.window.add_dock_widget(panel, name=name_of_dock(NAME), area="right", tabify=True)
    else:
        bring_to_front(panel)
    if page is not None:
        panel.tabs.setCurrentIndex(page)
    return panel


def open_comparison(viewer: Viewer) -> None:
    """Layers, Measure."""
    open_panel(viewer, COMPARE)


def open_view(viewer: Viewer) -> None:
    """Layers, Visualize."""
    open_panel(viewer, VIEW)


def _scrolled(page: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidget(page)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area
