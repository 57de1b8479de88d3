"""Steps onto another grid: other voxel sizes, other numbers of voxels, thick slices laid out finely."""
