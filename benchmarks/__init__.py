"""Measurements: run each from the root of the repository, as `python -m benchmarks.ROOM.NAME`; README.md lists them."""
