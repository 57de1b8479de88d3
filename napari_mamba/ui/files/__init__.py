"""Files and layers: napari's readers, writers and sample data, and the dialog for folders that hold several images."""
