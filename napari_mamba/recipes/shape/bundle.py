"""The bundle that the adrenal recipe leaves: its description, its calibration, and its numbers on the test glands."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba import bundles
from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.recipes.shape.card import DATA, USE, card, draw_failures
from napari_mamba.recipes.shape.recipe import (
    CLASSES,
    GRID,
    LIMIT,
    WINDOW,
    AdrenalShape,
    Members,
    arguments,
    glands,
    load,
)
from napari_mamba.recipes.shape.stacking import DECAY, weighed
from napari_mamba.training.linear import Regression, fit, fit_stacking
from napari_mamba.training.scoring import classification as scores

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

LAST = "mlp.3"
UPRIGHT = np.eye(4)[[2, 1, 0, 3]]  # 1 mm voxels; orienting leaves the axes as they are
MILLILITRES = [1.0, 20.0]  # what 99.9% of the training glands have, and a little more


def spec(variant: str) -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="adrenal-shape",
        version="1.0.0",
        title="Adrenal gland: normal or hyperplasia, from its mask",
        task="classification",
        network=Network("nnmamba_cls", {**arguments(variant), "granulometry": True}),
        channels=(Channel("mask of one adrenal gland", "MASK"),),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "binarise", "smallest": 100, "ml": MILLILITRES},
            {"step": "signed_distance", "limit": LIMIT},
            {"step": "resample", "spacing": [WINDOW / GRID] * 3, "order": 1},
            {"step": "centre", "size": [GRID] * 3, "whole": True},
        ),
        tile=Tile((GRID,) * 3, overlap=0.0, mirror_axes=(2,), divisor=(16, 16, 16), fixed=True),
        classes=(LabelClass(0, CLASSES[0]), LabelClass(1, CLASSES[1], "#d9633a")),
        description="Small nnMamba classifiers, each beside a logistic regression on the gland's granulometry.",
        authors="The napari-mamba developers",
        copyright="Weights: CC BY 4.0, as the data they were trained on",
        licence="CC-BY-4.0",
        data_source=DATA,
        intended_use=USE,
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
    described = replace(spec(recipe.variant), metrics=metrics)
    return bundles.save(destination, described, states, card(metrics), dtype="float16", overwrite=True)


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


def evaluate(
    data: Path,
    bundle: Path | str,
    *,
    device: str = "auto",
    write: bool = False,
    on_case: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """AUC, accuracy, F1 and calibration on the official test glands, through the engine; and the descriptors' own.

    `write` puts the numbers, the figures and the card into the bundle's folder.
    """
    loaded, stored = bundles.load(bundle), load(data)
    masks, labels = glands(stored, "test")
    probability = predict(loaded, masks, labels, device, on_case)
    measured: dict[str, Any] = {"glands": len(labels), "published_28": {"auc": 0.828, "accuracy": 0.802}}
    measured |= measure(labels, probability)
    baseline = descriptor_probability(stored)
    if baseline is not None:
        measured["descriptors"] = measure(labels, baseline)
    if write:
        from napari_mamba.training.scoring.evaluation import write_numbers

        metrics = {**loaded.metrics, "test": measured}
        with tempfile.TemporaryDirectory() as folder:
            curves = {"test glands": measured["curve"]}
            if "cross_validation" in metrics:
                curves["cross-validation"] = metrics["cross_validation"]["curve"]
            title = "adrenal-shape: hyperplasia"
            calibration = scores.draw_reliability(curves, Path(folder) / "calibration.png", title=title)
            failures = draw_failures(masks, labels, probability, Path(folder) / "failures.png")
            pictures = {path.name: path.read_bytes() for path in (calibration, failures)}
        write_numbers(loaded, metrics, card(metrics), pictures)
    return measured


def predict(
    bundle: Bundle,
    masks: np.ndarray,
    labels: np.ndarray,
    device: str = "auto",
    on_case: Callable[[str, dict[str, Any]], None] | None = None,
) -> np.ndarray:
    """Probability of hyperplasia (N,) of masks (N, Z, Y, X) of 1 mm voxels, through the engine."""
    from napari_mamba import engine
    from napari_mamba.volume import Volume

    found, options = [], engine.RunOptions(device=device)
    for number, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        result = engine.run_to_end(Volume((mask > 0).astype(np.uint8)[None], UPRIGHT), bundle, options)
        assert result.scores is not None  # of a classifier that was not cancelled
        found.append(result.scores[CLASSES[1]])
        if on_case:
            on_case(f"gland {number}", {CLASSES[1]: found[-1], "is": CLASSES[label]})
    return np.array(found)


def measure(labels: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """AUC, accuracy, F1 with their 95% intervals over glands, the confusion table, and the calibration."""
    said, each = (probability > 0.5).astype(int), np.arange(len(labels))
    return {
        "auc": scores.bootstrap(lambda rows: scores.auc(labels[rows], probability[rows]), each),
        "accuracy": scores.bootstrap(lambda rows: scores.accuracy(labels[rows], said[rows]), each),
        "f1": {
            name: scores.bootstrap(lambda rows, k=k: scores.f1(labels[rows] == k, said[rows] == k), each)  # type: ignore[misc]
            for k, name in enumerate(CLASSES)
        },
        "confusion": scores.confusion(labels, said, len(CLASSES)).tolist(),
        "calibration_error": scores.calibration_error(labels, probability),
        "curve": scores.reliability(labels, probability),
    }


def descriptor_probability(stored: Any) -> np.ndarray | None:
    """Probability of hyperplasia of the test glands by logistic regression over shape descriptors.

    None where scikit-learn or scikit-image is missing.
    """
    try:
        from napari_mamba.recipes.shape.descriptors import describe, regression

        model = regression()
        (seen, labels), (more, others), (asked, _) = (glands(stored, part) for part in ("train", "val", "test"))
        model.fit(np.array([describe(mask) for mask in (*seen, *more)]), np.concatenate([labels, others]))
        table = np.array([describe(mask) for mask in asked])
    except ImportError:
        return None
    return model.predict_proba(table)[:, 1]
