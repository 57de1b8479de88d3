"""Tiles over a prepared image: where they lie, how they pass through the networks, and how they are blended."""
