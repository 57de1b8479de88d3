"""Mamba-2's scan, `python -m benchmarks.scan.ssd`; other cuts than the plan's, `python -m benchmarks.scan.ssd.tune`."""
