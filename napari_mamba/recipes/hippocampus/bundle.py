"""The bundle that the hippocampus recipe leaves: its description, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.bundles.guards.locator import Locator
from napari_mamba.recipes.hippocampus import task
from napari_mamba.recipes.hippocampus.card import DATA, DESCRIPTION, USE, card
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.export import export_averaged


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="hippocampus-mr",
        version="1.2.4",
        title="Anterior and posterior hippocampus in T1-weighted MR",
        task="segmentation",
        network=Network("umamba_enc", task.NETWORK),
        channels=(Channel("T1-weighted MR, cropped around one hippocampus", "MR"),),
        preparation=task.PREPARATION,
        tile=Tile(task.TILE, overlap=0.5, mirror_axes=(2,), divisor=(8, 8, 8), reflect_below=task.SMALLEST_CROP),
        classes=(
            LabelClass(0, "background"),
            LabelClass(1, "anterior hippocampus", "#e4a63a", "SCT:5366008", "Hippocampus"),
            LabelClass(2, "posterior hippocampus", "#3a8fd9", "SCT:5366008", "Hippocampus"),
        ),
        postprocessing=task.POSTPROCESSING,
        locator=Locator("brain-structures-mr", {"left": (17,), "right": (53,)}, task.LARGEST_CROP, margin_mm=6.0),
        changelog={
            "1.2.4": "A box that cuts through a hippocampus is filled up with its mirror image, not with zeros; right "
            "images of smaller voxels are not doubted any more, more wrong ones are; the weights are the same.",
            "1.2.3": "Right images from other scanners and in other boxes are not doubted any more, wrong ones still "
            "are; the weights are the same.",
            "1.2.2": "Finds the hippocampi of a whole head by brain-structures-mr, doubts images that are not like its "
            "training's and answers that are not like people's; the weights are the same.",
            "1.2.1": "Classes carry SNOMED CT codes and laterality; the weights are the same.",
        },
        description=DESCRIPTION,
        authors="The napari-mamba developers",
        copyright="Weights: CC BY-SA 4.0, as the data they were trained on",
        licence="CC-BY-SA-4.0",
        data_source=DATA,
        intended_use=USE,
        references=(
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
            "Antonelli et al.: The Medical Segmentation Decathlon, Nature Communications 13:4128, 2022",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)
