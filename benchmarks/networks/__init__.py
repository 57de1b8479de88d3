"""Whole networks and their parts, beside their authors' code and MONAI's networks."""
