"""Layers made of scans."""

from napari_mamba.nn.mamba import Mamba
from napari_mamba.nn.mamba2 import Mamba2
from napari_mamba.nn.mixers import mixer
from napari_mamba.nn.s4d import S4D
from napari_mamba.nn.s5 import S5

__all__ = ["S4D", "S5", "Mamba", "Mamba2", "mixer"]
