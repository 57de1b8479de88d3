"""`napari-mamba serve` and its clients."""
