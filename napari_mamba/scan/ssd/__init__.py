"""Mamba-2's scan (state-space duality, SSD): in plain PyTorch, as a recurrence, and in Triton kernels for GPUs."""

from napari_mamba.scan.ssd.choice import SSD_BACKENDS, choose_ssd, ssd_backend_on
from napari_mamba.scan.ssd.chunked import ssd, ssd_from

__all__ = ["SSD_BACKENDS", "choose_ssd", "ssd", "ssd_backend_on", "ssd_from"]
