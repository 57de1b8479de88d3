"""The dock "Radiotherapy": plans to look at, and doses to predict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer  # menus: napari fills it in by its type
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QScrollArea, QTabWidget, QVBoxLayout, QWidget

from napari_mamba.ui.radiotherapy.plan.view import PlanView
from napari_mamba.ui.radiotherapy.prediction.view import PredictionView
from napari_mamba.ui.widgets.docks import DockPage, open_widget

if TYPE_CHECKING:
    from napari.components import ViewerModel

PLAN, PREDICT = range(2)
NAME = "Radiotherapy"


class RadiotherapyPanel(DockPage):
    """A plan, and the prediction of a dose.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.plan = PlanView(napari_viewer)
        self.prediction = PredictionView(napari_viewer)
        self.tabs = QTabWidget()
        for name, page in (("Plan", self.plan), ("Predict a dose", self.prediction)):
            self.tabs.addTab(_scrolled(page), name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.tabs)
        self.setMinimumWidth(380)
        self.prediction.predicted.connect(self._on_predicted)

    def sizeHint(self) -> QSize:
        """Wide enough for the table."""
        return QSize(500, 700)

    def _on_predicted(self, layer: Any) -> None:
        """Look at what came; a dose that was looked at before, the clinical one perhaps, stands beside it."""
        before = self.plan.model.dose
        self.plan.choose(layer, before if before is not layer else None)
        self.tabs.setCurrentIndex(PLAN)

    def leave(self) -> None:
        """Stop listening to the viewer."""
        for page in (self.plan, self.prediction):
            page.disconnect_from_viewer()


def open_panel(viewer: Viewer, page: int = PLAN) -> RadiotherapyPanel:
    """Open the panel, or bring the one that is open to the front."""
    panel = open_widget(viewer, RadiotherapyPanel, NAME)
    panel.tabs.setCurrentIndex(page)
    return panel


def open_plan(viewer: Viewer) -> None:
    """Layers, Measure."""
    open_panel(viewer, PLAN)


def _scrolled(page: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidget(page)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area
