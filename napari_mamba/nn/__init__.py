"""Layers made of scans."""

from napari_mamba.nn.mixers import S4D, S5, Mamba, Mamba2, mixer

__all__ = ["S4D", "S5", "Mamba", "Mamba2", "mixer"]
