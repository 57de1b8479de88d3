"""What `hippocampus-mr` answers, of what, and by which network.

Data: Medical Segmentation Decathlon, Task04 (Antonelli et al., Nature Communications 13:4128, 2022), CC BY-SA 4.0.
Network: U-Mamba Enc (Ma et al., arXiv:2401.04722).
"""

from __future__ import annotations

from typing import Any

from monai.networks.nets import SegResNet
from torch import nn

from napari_mamba import models

TILE = (40, 56, 40)
CLASSES = (1, 2)
PREPARATION = (
    {"step": "field_of_view", "mm": [20, 90]},  # a whole head is doubted; training's crops have 24 to 58 mm
    {"step": "orient", "axcodes": "RAS"},
    {"step": "resample", "spacing": [1.0, 1.0, 1.0]},
    {"step": "normalise", "schemes": ["zscore"]},
)
POSTPROCESSING = (
    {"step": "warn_volume", "ml": [1.6, 6.6], "what": "a hippocampus"},
    {"step": "warn_pieces", "most": 1, "smallest": 0.05},
    {"step": "warn_position", "rules": [[1, "A", 2, 9.1], [2, "S", 1, -4.0]], "smallest": 0.1},
)
"""By `benchmarks/bundles/doubt/plausible.py`, from the training people."""
LARGEST_CROP = (52.0, 68.0, 56.0)
"""Sides along right, anterior, superior, in mm; a fifth more than those of the largest crop of Task04."""
SMALLEST_CROP = (24, 40, 31)
"""Voxels (z, y, x) of 1 mm: the least that a crop of Task04 has along each axis. What is shorter cuts a hippocampus."""
NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [24, 48, 96, 160],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2, 2],
    "n_conv_per_stage_decoder": [1, 1, 1],
    "input_size": list(TILE),
}

SMALL: dict[str, Any] = {"features_per_stage": [16, 32, 64, 128], "n_conv_per_stage": [1, 1, 1, 1]}


def network(variant: str) -> nn.Module:
    """A variant with random weights."""
    if variant == "segresnet":
        return SegResNet(3, init_filters=16, in_channels=1, out_channels=3, blocks_down=(1, 2, 2, 2))
    if variant == "small":
        return models.create("umamba_enc", **{**NETWORK, **SMALL})
    return models.create("umamba_bot" if variant == "bottom" else "umamba_enc", **NETWORK)
