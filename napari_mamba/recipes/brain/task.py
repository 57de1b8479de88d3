"""What `brain-structures-mr` answers, and by which network: U-Mamba Enc (Ma et al., arXiv:2401.04722)."""

from __future__ import annotations

from typing import Any

from torch import nn

from napari_mamba import models
from napari_mamba.bundles import LabelClass
from napari_mamba.recipes.brain.structures import INDICES, STRUCTURES

WINDOW: tuple[int, int, int] = (128, 144, 128)
FEATURES = [16, 32, 64, 128, 192]
NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": len(INDICES),
    "features_per_stage": FEATURES,
    "kernel_sizes": [[3, 3, 3]] * 5,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 4],
    "n_conv_per_stage": [1, 2, 2, 2, 1],
    "n_conv_per_stage_decoder": [1, 2, 2, 1],
    "generation": "v1",
    "first_scan": 3,
}
GREY = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 17, 53, 18, 54, 26, 58)
WHITE = (2, 41, 7, 46, 16, 13, 52, 28, 60)
"""Structures that count as grey and as white matter against the ICBM tissue maps."""

_COLORS = {
    "cerebral white matter": "#f5f5f5",
    "cerebral cortex": "#cd3e4e",
    "lateral ventricle": "#781286",
    "inferior lateral ventricle": "#c43afa",
    "cerebellum white matter": "#dcf8a4",
    "cerebellum cortex": "#e69422",
    "thalamus": "#00760e",
    "caudate": "#7abadc",
    "putamen": "#ec0db0",
    "pallidum": "#0c30ff",
    "3rd ventricle": "#ccb68e",
    "4th ventricle": "#2acca4",
    "brain-stem": "#779fb0",
    "hippocampus": "#dcd814",
    "amygdala": "#67ffff",
    "accumbens area": "#ffa500",
    "CSF around the brain": "#3c3cc8",
    "ventral DC": "#a52a2a",
}
"""FreeSurfer's colours, for users who know them; the same on both sides."""

_CODES = {
    "cerebral white matter": ("68523003", "Cerebral White Matter"),
    "cerebral cortex": ("40146001", "Cerebral cortex"),
    "lateral ventricle": ("66720007", "Lateral ventricle"),
    "inferior lateral ventricle": ("66720007", "Lateral ventricle"),
    "cerebellum white matter": ("33060004", "Cerebellar white matter"),
    "cerebellum cortex": ("113305005", "Cerebellum"),
    "thalamus": ("42695009", "Thalamus"),
    "caudate": ("11000004", "Caudate nucleus"),
    "putamen": ("89278009", "Putamen"),
    "pallidum": ("14738005", "Globus pallidus"),
    "3rd ventricle": ("49841001", "Third ventricle"),
    "4th ventricle": ("35918002", "Fourth ventricle"),
    "brain-stem": ("119238007", "Brain stem"),
    "hippocampus": ("5366008", "Hippocampus"),
    "amygdala": ("4958002", "Amygdala"),
    "accumbens area": ("427667007", "Nucleus accumbens"),
    "CSF around the brain": ("65216001", "Cerebrospinal Fluid"),
    "ventral DC": ("87563008", "Diencephalon"),
}
"""SNOMED CT code and meaning in 3D Slicer's copy of DICOM's lists; where these lack a part, what it is a part of."""


def classes() -> tuple[LabelClass, ...]:
    """Background and the 32 structures, by FreeSurfer's label values."""
    named = [LabelClass(0, "background")]
    for index in INDICES[1:]:
        name = STRUCTURES[index]
        part = name.removeprefix("left ").removeprefix("right ")
        side = name.split()[0] if part != name else ""
        code, meaning = _CODES[part]
        named.append(LabelClass(index, name, _COLORS[part], f"SCT:{code}", meaning, side))
    return tuple(named)


def network(variant: str) -> nn.Module:
    """A variant with random weights."""
    if variant == "segresnet":
        from monai.networks.nets import SegResNet

        return SegResNet(3, 16, 1, len(INDICES), blocks_down=(1, 2, 2, 6), blocks_up=(1, 1, 1))
    if variant == "bottom":
        return models.create("umamba_bot", **{k: v for k, v in NETWORK.items() if k != "first_scan"})
    return models.create("umamba_enc", **NETWORK)
