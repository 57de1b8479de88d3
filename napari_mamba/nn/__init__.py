"""Layers made of scans."""

from napari_mamba.nn.mixers import H3, S4, S4D, S5, Mamba, Mamba2, Mamba2Simple, mixer

__all__ = ["H3", "S4", "S4D", "S5", "Mamba", "Mamba2", "Mamba2Simple", "mixer"]
