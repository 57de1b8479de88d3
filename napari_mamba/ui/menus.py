"""What napari's menus call: the dock on a model of a task, and entries on a layer's right-click."""

from __future__ import annotations

from napari.viewer import Viewer

from napari_mamba.ui.run.inputs import SELECTED
from napari_mamba.ui.run.session import session_of
from napari_mamba.ui.run.widget import RunWidget

WIDGET = "Run a model"
DISPLAY_NAME = "Mamba medical imaging"
"""As in the manifest; napari names docks after both."""


def open_dock(viewer: Viewer) -> RunWidget:
    """Open the dock, or bring the one that is open to the front; it is never hidden by that."""
    from qtpy.QtWidgets import QDockWidget

    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, RunWidget):
            parent = widget.parentWidget()
            while parent is not None and not isinstance(parent, QDockWidget):
                parent = parent.parentWidget()
            if parent is not None:
                parent.show()
                parent.raise_()
            return widget
    widget = RunWidget(viewer)
    viewer.window.add_dock_widget(widget, name=f"{WIDGET} ({DISPLAY_NAME})", add_vertical_stretch=False)
    return widget


def open_task(viewer: Viewer, task: str) -> RunWidget:
    """Open the dock on a model of a task: the first that fits the image, or the chosen one where it is of that task."""
    widget = open_dock(viewer)
    session_of(viewer).choose_task(task)
    return widget


def segment(viewer: Viewer) -> None:
    """Layers, Segment."""
    open_task(viewer, "segmentation")


def restore(viewer: Viewer) -> None:
    """Layers, Filter."""
    open_task(viewer, "restoration")


def classify(viewer: Viewer) -> None:
    """Layers, Classify."""
    open_task(viewer, "classification")


def measure(viewer: Viewer) -> None:
    """Layers, Measure: volumes and intensities of structures, which a segmentation gives."""
    open_task(viewer, "segmentation")


def visualize(viewer: Viewer) -> None:
    """Layers, Visualize: how sure a model is, as a map on the image."""
    widget = open_task(viewer, "segmentation")
    session_of(viewer).options.uncertainty = True
    widget.options.folded.expand(animate=False)


def run_on_layer(viewer: Viewer) -> None:
    """A layer's right-click: the dock, with that layer chosen and following the selection no further."""
    session = session_of(viewer)
    active = viewer.layers.selection.active
    open_dock(viewer)
    if len(session.inputs.chosen) == 1 and active in session.inputs.layers:
        session.inputs.choose(0, active)
    elif len(session.inputs.chosen) == 1:
        session.inputs.choose(0, SELECTED)  # which says why this layer cannot be taken
