"""The recipes of the restoration bundles: `mr-denoise` and `mr-superres`."""
