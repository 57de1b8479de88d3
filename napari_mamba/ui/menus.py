"""What napari's menus call: the dock on a model of a task, and entries on a layer's right-click."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer

from napari_mamba.ui.run.dock import RunDock

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_mamba.ui.run.widget import RunWidget

WIDGET = "Run a model"
DISPLAY_NAME = "Mamba medical imaging"
"""As in the manifest; napari names docks after both."""


def open_dock(viewer: Viewer, then: Callable[[RunWidget], Any] | None = None) -> RunDock:
    """Open the dock, or bring the one that is open to the front; it is never hidden by that.

    Parameters
    ----------
    viewer : napari viewer
    then : callable, optional
        Called with the widget in it, as soon as that is there.
    """
    dock = next((widget for widget in viewer.window.dock_widgets.values() if isinstance(widget, RunDock)), None)
    if dock is None:
        dock = RunDock(viewer)
        viewer.window.add_dock_widget(dock, name=f"{WIDGET} ({DISPLAY_NAME})", add_vertical_stretch=False)
    else:
        to_front(dock)
    if then is not None:
        dock.when_ready(then)
    return dock


def to_front(widget: QWidget) -> None:
    """Show the dock that a widget is in, before those that share its place."""
    from qtpy.QtWidgets import QDockWidget

    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    if parent is not None:
        parent.show()
        parent.raise_()


def open_task(viewer: Viewer, task: str) -> RunDock:
    """Open the dock on a model of a task: the first that fits the image, or the chosen one where it is of that task."""
    return open_dock(viewer, lambda widget: widget.session.choose_task(task))


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

    def ask_for_map(widget: RunWidget) -> None:
        widget.session.choose_task("segmentation")
        widget.session.options.uncertainty = True
        widget.options.folded.expand(animate=False)

    open_dock(viewer, ask_for_map)


def run_on_layer(viewer: Viewer) -> None:
    """A layer's right-click: the dock with that layer chosen, or with the sentence about why it cannot be."""
    active = viewer.layers.selection.active

    def choose(widget: RunWidget) -> None:
        from napari_mamba.ui.run.choice.inputs import SELECTED

        inputs = widget.session.inputs
        if len(inputs.chosen) == 1:
            inputs.choose(0, active if active in inputs.layers else SELECTED)

    open_dock(viewer, choose)
