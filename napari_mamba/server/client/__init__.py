"""The other end of `napari-mamba serve`, for programs that run on this computer: the standard library alone.

`remote.run` has the events and the result of `engine.run`. Nothing in here needs FastAPI, PyTorch or a window.
"""
