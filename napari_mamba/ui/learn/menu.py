"""What napari's menu calls: the dock "Learn", opened once."""

from __future__ import annotations

from napari.viewer import Viewer  # napari fills it in by its type

from napari_mamba.ui.learn.widget import LearnWidget
from napari_mamba.ui.widgets.docks import bring_to_front, name_of_dock

NAME = "Learn"


def learn(viewer: Viewer) -> LearnWidget:
    """Layers, Segment: open the dock that makes a model of images and labels, or bring it to the front."""
    dock = next((widget for widget in viewer.window.dock_widgets.values() if isinstance(widget, LearnWidget)), None)
    if dock is None:
        dock = LearnWidget(viewer)
        viewer.window.add_dock_widget(dock, name=name_of_dock(NAME), add_vertical_stretch=False)
    else:
        bring_to_front(dock)
    return dock
