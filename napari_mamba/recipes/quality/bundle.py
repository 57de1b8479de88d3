"""The bundle that the quality recipe leaves: its description, and its two parts weighed and calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.nn.descriptors.spectrum import Spectrum
from napari_mamba.recipes.quality.card import DATA, USE, card
from napari_mamba.recipes.quality.kspace import HIDDEN, MEMBERS
from napari_mamba.recipes.quality.recipe import Quality
from napari_mamba.recipes.quality.task import CLASSES, SPACING, WINDOW, arguments
from napari_mamba.training.linear import fit_stacking
from napari_mamba.training.scoring import classification as scores
from napari_mamba.training.weights.export import write_bundle

FACTOR_DECAY = 1.0
"""Keeps the few factors from growing where the validation scans of a class are separated without error."""


def spec(variant: str) -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="mr-quality",
        version="1.0.3",
        title="Artefacts in a brain MR scan",
        task="classification",
        network=Network("nnmamba_cls", {**arguments(variant), "spectrum": HIDDEN * MEMBERS}),
        channels=(Channel("MR of the head, any contrast", "MR"),),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "slice_axis_first"},
            {"step": "resample", "spacing": list(SPACING), "order": 1, "order_z": 0, "anisotropy": "nnunet"},
            {"step": "normalise", "schemes": ["zscore"]},
            {"step": "centre", "size": list(WINDOW), "min_coverage": 0.5},
            {"step": "normalise", "schemes": ["zscore"]},
        ),
        tile=Tile(WINDOW, overlap=0.0, divisor=(16, 16, 16), fixed=True),
        activation="sigmoid",
        classes=tuple(LabelClass(number, name) for number, name in enumerate(CLASSES)),
        description="A small nnMamba and what k-space tells: clean or which artefacts, with a probability each.",
        authors="The napari-mamba developers",
        copyright="Weights: CC BY 4.0, as most of the data they were trained on",
        licence="CC-BY-4.0",
        data_source=DATA,
        intended_use=USE,
        changelog={
            "1.0.1": "Images that are no head in MR are answered by 'none of these' first; the weights are the same.",
            "1.0.2": "Most CTs kept in a window, half heads and label maps too; the weights are the same.",
            "1.0.3": "CTs kept in a window, PET and heads on their side or twice as large too, and fewer right heads; "
            "the weights are the same.",
        },
        references=(
            "Gong et al.: nnMamba, arXiv:2402.03526",
            "Pérez-García et al.: TorchIO, Computer Methods and Programs in Biomedicine 208, 2021",
        ),
    )


def export(recipe: Quality, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle: network and perceptron, weighed class by class on simulated scans of the validation person."""
    network = recipe.network()
    network.load_state_dict(weights)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits, spectral, truth = recipe.validation_logits(network.to(device).eval(), device)
    factors = [fit_stacking(logits[:, k], spectral[:, k], truth[:, k], FACTOR_DECAY) for k in range(len(CLASSES))]
    both = np.stack([a * logits[:, k] + b * spectral[:, k] + c for k, (a, b, c) in enumerate(factors)], axis=1)
    metrics = {
        "trained": {**history, "simulated": len(recipe.table(device)[0])},
        "weighed": {
            name: dict(zip(("network", "k_space", "shift"), f, strict=True))
            for name, f in zip(CLASSES, factors, strict=True)
        },
        "validation": {
            part: scores.macro_f1(truth.argmax(1), said.argmax(1), len(CLASSES))
            for part, said in (("network", logits), ("k_space", spectral), ("both", both))
        },
    }
    state = joined(network.cpu().state_dict(), recipe.spectrum, factors)
    return write_bundle(spec(recipe.variant), card, [state], destination, metrics)


def joined(
    state: dict[str, Tensor], spectrum: Spectrum, factors: list[tuple[float, float, float]]
) -> dict[str, Tensor]:
    """Weights of a network with a `Spectrum`: each class's logits of both times their factors, and shifted."""
    state = {key: value.clone() for key, value in state.items()}
    first, second, shift = (torch.tensor(column, dtype=torch.float32) for column in zip(*factors, strict=True))
    state["mlp.3.weight"] *= first[:, None]
    state["mlp.3.bias"] = state["mlp.3.bias"] * first + shift
    state |= {f"spectrum.{key}": value.clone() for key, value in spectrum.state_dict().items()}
    state["spectrum.last.weight"] *= second[:, None]
    state["spectrum.last.bias"] *= second
    return state
