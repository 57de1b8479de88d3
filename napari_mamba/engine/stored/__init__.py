"""A run out of core: the image is read tile by tile, and the answer is written chunk by chunk into a Zarr store."""
