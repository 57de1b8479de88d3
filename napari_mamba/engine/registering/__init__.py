"""Two images registered: an affine, a network's warp, a warp fitted to the pair."""
