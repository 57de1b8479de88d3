"""The bundle that the adrenal recipe leaves: its description, and the members weighed and calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.recipes.shape.card import DATA, USE, card
from napari_mamba.recipes.shape.recipe import AdrenalShape
from napari_mamba.recipes.shape.stacking import DECAY, weighed
from napari_mamba.recipes.shape.task import CLASSES, GRID, LIMIT, WINDOW, Members, arguments
from napari_mamba.training.linear import Regression, fit, fit_stacking
from napari_mamba.training.scoring import classification as scores
from napari_mamba.training.weights.export import write_bundle

LAST = "mlp.3"
MILLILITRES = [1.0, 20.0]  # what 99.9% of the training glands have, and a little more


def spec(variant: str) -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="adrenal-shape",
        version="1.0.2",
        title="Adrenal gland: normal or hyperplasia, from its mask",
        task="classification",
        network=Network("nnmamba_cls", {**arguments(variant), "granulometry": True}),
        channels=(Channel("mask of one adrenal gland", "MASK"),),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "binarise", "smallest": 100, "ml": MILLILITRES},
            {"step": "signed_distance", "limit": LIMIT},
            {"step": "resample", "spacing": [WINDOW / GRID] * 3, "order": 1},
            {"step": "centre", "size": [GRID] * 3, "require_whole": True},
        ),
        tile=Tile((GRID,) * 3, overlap=0.0, mirror_axes=(2,), divisor=(16, 16, 16), fixed=True),
        classes=(LabelClass(0, CLASSES[0]), LabelClass(1, CLASSES[1], "#d9633a")),
        description="Small nnMamba classifiers, each beside a logistic regression on the gland's granulometry.",
        authors="The napari-mamba developers",
        copyright="Weights: CC BY 4.0, as the data they were trained on",
        licence="CC-BY-4.0",
        data_source=DATA,
        intended_use=USE,
        changelog={
            "1.0.2": "Masks of other organs are told by what is known of them too; the weights are the same.",
            "1.0.1": "A mask of another organ is told from a gland's, and answered by 'none of these'; "
            "the weights are the "
            "same.",
        },
        references=(
            "Gong et al.: nnMamba, arXiv:2402.03526",
            "Yang et al.: MedMNIST v2, Scientific Data 10:41, 2023",
        ),
    )


def export(recipe: AdrenalShape, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of all members and their regressions, weighed on the glands that each has not seen."""
    members = recipe.network()
    members.load_state_dict(weights)
    assert isinstance(members, Members)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits = recipe.out_of_fold_logits(members.to(device).eval(), device, flips=2)
    margin, shape, labels = logits[:, 1] - logits[:, 0], recipe.fit_descriptors(device), recipe.arrays["label"]
    factors = fit_stacking(margin, shape, labels)
    metrics = {
        "trained": {**history, "members": len(members.members)},
        "weighed": dict(zip(("network", "descriptors", "shift"), factors, strict=True)),
        "cross_validation": cross_validate(margin, shape, labels, recipe.fold),
    }
    table = recipe.table(device)
    states = [
        joined(member.state_dict(), fit(table[recipe.fold != k], labels[recipe.fold != k], DECAY), factors)
        for k, member in enumerate(members.cpu().members)
    ]
    return write_bundle(spec(recipe.variant), card, states, destination, metrics)


def cross_validate(margin: np.ndarray, shape: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> dict[str, Any]:
    """What the bundle's parts say of glands that they have not seen; the factors for a fold come from the others."""
    both = weighed(margin, shape, labels, fold)
    probability, each = 1 / (1 + np.exp(-both)), np.arange(len(labels))

    def area(score: np.ndarray) -> dict[str, float]:
        return scores.bootstrap(lambda rows: scores.auc(labels[rows], score[rows]), each)

    return {
        "glands": len(labels),
        "auc": area(both),
        "auc_network": area(margin),
        "auc_descriptors": area(shape),
        "accuracy": scores.accuracy(labels, both > 0),
        "calibration_error": scores.calibration_error(labels, probability),
        "curve": scores.reliability(labels, probability),
    }


def joined(state: dict[str, Tensor], regression: Regression, factors: tuple[float, float, float]) -> dict[str, Tensor]:
    """Weights of a network with a `Granulometry`: each part's logits times its factor, that of class 1 shifted."""
    network, shape, shift = factors
    state = {key: value.clone() for key, value in state.items()}
    for part in ("weight", "bias"):
        state[f"{LAST}.{part}"] *= network
    state[f"{LAST}.bias"] += torch.tensor([0.0, shift])
    weight = torch.from_numpy(regression.weight).float() * shape
    state["granulometry.mean"] = torch.from_numpy(regression.mean).float()
    state["granulometry.deviation"] = torch.from_numpy(regression.deviation).float()
    # The margin is class 1 less class 0: half of it to each.
    state["granulometry.linear.weight"] = torch.stack([-weight / 2, weight / 2])
    state["granulometry.linear.bias"] = torch.tensor([-0.5, 0.5]) * (shape * regression.bias)
    return state
