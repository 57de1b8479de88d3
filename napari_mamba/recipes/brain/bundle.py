"""The bundle that the brain recipe leaves: its description, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.recipes.brain.card import DATA, USE, VERSION, card
from napari_mamba.recipes.brain.recipe import NETWORK
from napari_mamba.recipes.brain.structures import INDICES, LEFT_RIGHT, STRUCTURES
from napari_mamba.training.weights.export import export_averaged
from napari_mamba.training.weights.gains import bound_weight_gain

TILE = (112, 144, 128)
"""Eight of these cover an adult's head cut at 1 mm as the ICBM template is, with a quarter of overlap."""

PREPARATION: tuple[dict[str, Any], ...] = (
    {"step": "field_of_view", "mm": [80, 400], "max_mm": 700},
    {"step": "orient", "axcodes": "RAS"},
    {"step": "resample", "spacing": [1.0, 1.0, 1.0], "order": 1},
    {"step": "normalise", "schemes": [{"scheme": "percentile", "lower": 0.5, "upper": 99.5}]},
)
MIRROR_AXES: tuple[int, ...] = (2,)
LEFT_RIGHT_PAIRS = tuple(label for pair in LEFT_RIGHT.items() if pair[0] in STRUCTURES for label in pair)
BRAIN = tuple(index for index in STRUCTURES if index != 24)
POSTPROCESSING: tuple[dict[str, Any], ...] = (
    {"step": "keep_largest", "as_one_structure": True},
    {"step": "keep_largest", "indices": [index for index in STRUCTURES if index != 24]},
    {"step": "warn_volume", "what": "a brain without its CSF", "ml": [600, 1900], "indices": list(BRAIN)},
    {"step": "warn_missing", "allowed": 2, "smallest": 0.02},
)

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
    "CSF": "#3c3cc8",
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
    "CSF": ("65216001", "Cerebrospinal Fluid"),
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


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="brain-structures-mr",
        version=VERSION,
        title="32 brain structures in MR of any contrast",
        task="segmentation",
        network=Network("umamba_enc", NETWORK),
        channels=(Channel("MR of the head or the skull-stripped brain, any contrast", "MR"),),
        preparation=PREPARATION,
        tile=Tile(TILE, overlap=0.25, divisor=(16, 16, 16), mirror_axes=MIRROR_AXES, left_right_pairs=LEFT_RIGHT_PAIRS),
        classes=classes(),
        description="Left and right structures of the brain, by FreeSurfer's label values, from one MR scan of any "
        "contrast and resolution.",
        authors="The napari-mamba developers",
        copyright="Weights: Apache-2.0, as the label maps they were trained on",
        licence="Apache-2.0",
        data_source=DATA,
        intended_use=USE,
        references=(
            "Billot et al.: SynthSeg, Medical Image Analysis 86:102789, 2023",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
            "Xie et al.: Self-training with Noisy Student, arXiv:1911.04252",
        ),
        postprocessing=POSTPROCESSING,
    )


def export(weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, bound_weight_gain(weights), destination, history)
