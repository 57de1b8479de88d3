"""Registration: affine, velocity fields, and transforms that ITK, ANTs and Slicer apply."""
