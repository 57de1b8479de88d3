"""What napari's menu calls: the dock "Learn", opened once."""

from __future__ import annotations

from napari.viewer import Viewer  # napari fills it in by its type

from napari_mamba.ui.learn.widget import LearnWidget
from napari_mamba.ui.widgets.docks import open_widget

NAME = "Learn"


def learn(viewer: Viewer) -> LearnWidget:
    """Layers, Segment: open the dock that makes a model of images and labels, or bring it to the front."""
    return open_widget(viewer, LearnWidget, NAME)
