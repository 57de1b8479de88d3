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
from napari_mamba.training import classification as scores
from napari_mamba.training.shape.card import DATA, USE, card, draw_failures
from napari_mamba.training.shape.recipe import CLASSES, GRID, LIMIT, WINDOW, AdrenalShape, Members, arguments, load

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

LAST = ("mlp.3", "histogram.linear")  # the layers whose outputs add up to the logits
UPRIGHT = np.eye(4)[[2, 1, 0, 3]]  # 1 mm voxels; orienting leaves the axes as they are
MILLILITRES = [1.0, 20.0]  # what 99.9% of the training glands have, and a little more


def spec(variant: str) -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="adrenal-shape",
        version="1.0.0",
        title="Adrenal gland: normal or hyperplasia, from its mask",
        task="classification",
        network=Network("nnmamba_cls", arguments(variant)),
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
        description="An ensemble of small nnMamba classifiers over the signed distance to the gland's surface.",
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
    """Write the bundle of all members, calibrated on the glands that each has not seen."""
    members = recipe.network()
    members.load_state_dict(weights)
    assert isinstance(members, Members)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits = recipe.unseen(members.to(device).eval(), device, flips=2)
    margin, labels = logits[:, 1] - logits[:, 0], recipe.arrays["label"]
    scale, shift = scores.fit_scaling(margin, labels)
    probability = 1 / (1 + np.exp(-(scale * margin + shift)))
    metrics = {
        "trained": {**history, "members": len(members.members)},
        "calibration": {"scale": scale, "shift": shift},
        "cross_validation": {
            "glands": len(labels),
            "auc": scores.bootstrap(lambda rows: scores.auc(labels[rows], margin[rows]), np.arange(len(labels))),
            "accuracy": scores.accuracy(labels, probability > 0.5),
            "calibration_error": scores.calibration_error(labels, probability),
            "curve": scores.reliability(labels, probability),
        },
    }
    states = [calibrated(member.state_dict(), scale, shift) for member in members.cpu().members]
    described = replace(spec(recipe.variant), metrics=metrics)
    return bundles.save(destination, described, states, card(metrics), dtype="float16", overwrite=True)


def calibrated(state: dict[str, Tensor], scale: float, shift: float) -> dict[str, Tensor]:
    """Weights whose last layers scale the logits, and shift that of class 1: the calibration is in the network."""
    state = dict(state)
    for layer in LAST:
        for part in ("weight", "bias"):
            state[f"{layer}.{part}"] = state[f"{layer}.{part}"] * scale
    state[f"{LAST[0]}.bias"] = state[f"{LAST[0]}.bias"] + torch.tensor([0.0, shift])
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
    masks, labels = stored["test_images"], stored["test_labels"].ravel().astype(int)
    probability = predict(loaded, masks, labels, device, on_case)
    measured: dict[str, Any] = {"glands": len(labels), "published_28": {"auc": 0.828, "accuracy": 0.802}}
    measured |= measure(labels, probability)
    baseline = descriptor_probability(stored)
    if baseline is not None:
        measured["descriptors"] = measure(labels, baseline)
    if write:
        from napari_mamba.training.evaluation import write_numbers

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
        from napari_mamba.training.shape.descriptors import describe, regression

        model = regression()
        tables = {
            part: np.array([describe(mask) for mask in stored[f"{part}_images"]]) for part in ("train", "val", "test")
        }
    except ImportError:
        return None
    labels = np.concatenate([stored[f"{part}_labels"].ravel() for part in ("train", "val")])
    model.fit(np.concatenate([tables["train"], tables["val"]]), labels)
    return model.predict_proba(tables["test"])[:, 1]
