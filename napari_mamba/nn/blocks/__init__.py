"""Blocks that networks are put together from, and how maps and tokens change into each other."""
