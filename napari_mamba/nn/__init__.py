"""Layers made of scans."""

from napari_mamba.nn.mamba import Mamba

__all__ = ["Mamba"]
