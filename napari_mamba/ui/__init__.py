"""What napari shows: the dock widget, readers, writers and sample data. The only room that imports Qt or napari."""
