"""The bundle that the brain recipe leaves: its description, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.recipes.brain.card import DATA, USE, VERSION, card
from napari_mamba.recipes.brain.structures import LEFT_RIGHT, STRUCTURES
from napari_mamba.recipes.brain.task import NETWORK, classes
from napari_mamba.training.recipe import Recipe
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
COMPARED_SIDES = (2, 41, 3, 42, 7, 46, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54)
DIFFERENCES = (0.12, 0.21, 0.38, 0.17, 0.38, 0.27, 0.32, 0.7, 0.7, 0.7)
"""How far the two sides of each pair may differ: twice what the 20 label maps do, widened by three deviations."""
POSTPROCESSING: tuple[dict[str, Any], ...] = (
    {"step": "keep_largest", "as_one_structure": True},
    {"step": "keep_largest", "indices": [index for index in STRUCTURES if index != 24]},
    {"step": "warn_volume", "what": "a brain without its CSF", "ml": [600, 1900], "indices": list(BRAIN)},
    {"step": "warn_missing", "allowed": 2, "smallest": 0.02},
    {
        "step": "warn_position",
        "rules": [
            [2, "L", 41, 43],
            [3, "L", 42, 49],
            [8, "L", 47, 32],
            [17, "L", 53, 32],
            [10, "L", 49, 14],
            [12, "L", 51, 39],
            [18, "A", 17, 2.7],
            [54, "A", 53, 12],
            [3, "S", 8, 28],
            [42, "S", 47, 27],
            [10, "S", 16, 27],
            [16, "A", 8, 10],
            [16, "A", 47, 10],
            [16, "A", 15, 4.8],
            [11, "A", 10, 14],
            [50, "A", 49, 13],
            [4, "S", 17, 3.8],
            [43, "S", 53, 15],
        ],
        "smallest": 0.3,
    },
    {"step": "warn_sides", "pairs": list(COMPARED_SIDES), "difference": list(DIFFERENCES), "smallest": 1.0},
    {"step": "warn_thick", "rules": [[3, 8, 5], [42, 8, 5]]},
    {"step": "warn_unlike", "rules": [[[2, 41], 4, 7]]},
)
"""Positions and sides by `benchmarks/bundles/doubt/plausible.py`, from the 20 label maps; the last two by `planted.py`
beside it, from those maps and answers on scans."""


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
        changelog={
            "1.6.6": "CTs kept in a window, PET and heads on their side or twice as large are doubted, and fewer right "
            "heads are; the weights are the same.",
            "1.6.5": "Cortex that is far too thick and white matter unlike the rest of it are doubted, as where a "
            "tumour was labelled as healthy tissue; the weights are the same.",
            "1.6.4": "Left and right are compared by limits of each structure; most CTs kept in a window, half heads "
            "and label maps are doubted, fewer right heads are; the weights are the same.",
            "1.6.3": "Images that are no head in MR, or lie turned, are doubted before the run; "
            "the weights are the same.",
            "1.6.2": "Structures that do not lie as in people, and sides that differ more, are doubted; label 24 is "
            "called what it is, CSF around the brain; the weights are the same.",
            "1.6.1": "Classes carry SNOMED CT codes and laterality; the weights are the same.",
        },
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, bound_weight_gain(weights), destination, history)
