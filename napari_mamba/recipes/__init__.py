"""Recipes: what is trained on what, and how; the machinery is in `napari_mamba.training`."""
