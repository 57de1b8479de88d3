"""Layers that mix tokens along scan orders: S6 and what can take its place."""

from napari_mamba.nn.mixers.linear.h3 import H3
from napari_mamba.nn.mixers.linear.s4 import S4
from napari_mamba.nn.mixers.linear.s4d import S4D
from napari_mamba.nn.mixers.linear.s5 import S5
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.mixers.mamba2 import Mamba2, Mamba2Simple
from napari_mamba.nn.mixers.registry import mixer

__all__ = ["H3", "S4", "S4D", "S5", "Mamba", "Mamba2", "Mamba2Simple", "mixer"]
