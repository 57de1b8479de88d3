"""Published networks that label voxels, one file each."""
