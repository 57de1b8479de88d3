"""What a run, the scan, its gradients and the networks take on one GPU, each beside its goal: see `__main__.py`."""
