"""The window in napari."""
