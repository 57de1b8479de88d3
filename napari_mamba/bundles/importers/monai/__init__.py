"""Bundles of MONAI: their configuration, what of its steps is the same here, their weights."""
