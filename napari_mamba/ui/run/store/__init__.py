"""A run into a Zarr store, of a layer that need not fit into memory: what appears while it is written."""
