"""The bundle that the quality recipe leaves: its description, its calibration, its numbers on people kept apart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba import bundles
from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.nn.descriptors.spectrum import Spectrum
from napari_mamba.recipes.quality.artefacts import ARTEFACTS
from napari_mamba.recipes.quality.card import DATA, USE, card, draw_failures, draw_where
from napari_mamba.recipes.quality.kspace import HIDDEN, MEMBERS
from napari_mamba.recipes.quality.recipe import CLASSES, SPACING, WINDOW, Quality, arguments
from napari_mamba.training.linear import fit_stacking
from napari_mamba.training.scoring import classification as scores

if TYPE_CHECKING:
    from napari_mamba.volume import Volume

FACTOR_DECAY = 1.0
"""Keeps the few factors from growing where the validation scans of a class are separated without error."""
REPEATS, PAIRS = 6, 6
"""Simulated scans of each test scan: for each class, clean among them, and with two artefacts."""


def spec(variant: str) -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="mr-quality",
        version="1.0.0",
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
    described = replace(spec(recipe.variant), metrics=metrics)
    return bundles.save(destination, described, [state], card(metrics), dtype="float16", overwrite=True)


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


def evaluate(
    data: Path,
    bundle: Path | str,
    *,
    device: str = "auto",
    write: bool = False,
    on_case: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Macro F1, confusion and calibration on scans of the test people with artefacts made by TorchIO.

    `write` puts the numbers, the figures and the card into the bundle's folder.
    """
    from napari_mamba import engine

    loaded, rows, options = bundles.load(bundle), [], engine.RunOptions(device=device)
    seen = Gallery()
    for case, person, names, volume in cases(data):
        result = engine.run_to_end(volume, loaded, options)
        assert result.scores is not None  # of a classifier that was not cancelled
        probability = [result.scores[name] for name in CLASSES]
        rows.append({"case": case, "person": person, "names": names, "probability": probability})
        seen.look(rows[-1], volume)
        if on_case:
            on_case(case, {CLASSES[int(np.argmax(probability))]: float(max(probability))})
    measured = measure(rows)
    if write:
        from napari_mamba.training.scoring.evaluation import write_numbers

        metrics = {**loaded.metrics, "test": {key: value for key, value in measured.items() if key != "cases"}}
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            drawn = [
                scores.draw_reliability({"all classes": measured["curve"]}, place / "calibration.png", "mr-quality"),
                draw_failures(seen.worst, place / "failures.png"),
                draw_where(loaded, seen.right, options, place / "where.png"),
            ]
            pictures = {path.name: path.read_bytes() for path in drawn}
        write_numbers(loaded, metrics, card(metrics), pictures)
    return measured


class Gallery:
    """The scans to show: those judged worst, and one of each artefact that was found."""

    def __init__(self, count: int = 4):
        self.count = count
        self.worst: list[tuple[float, dict[str, Any], Volume]] = []
        self.right: dict[str, Volume] = {}

    def look(self, row: dict[str, Any], volume: Volume) -> None:
        """Keep this scan if it is worth showing."""
        truth, probability = targets([row])[0], np.asarray(row["probability"])
        off = float(np.abs(truth - probability).max())
        if off > 0.5:
            self.worst = sorted([*self.worst, (off, row, volume)], key=lambda entry: -entry[0])[: self.count]
        elif len(row["names"]) == 1:
            self.right.setdefault(row["names"][0], volume)


def cases(data: Path) -> Iterator[tuple[str, str, list[str], Volume]]:
    """Every simulated scan of the test people, always the same: name, person, artefacts, scan."""
    from napari_mamba import io
    from napari_mamba.recipes.quality.torchio_artefacts import add, mild
    from napari_mamba.recipes.restore import data as scans

    for number, file in enumerate(scans.files(data, ("test",))):
        volume, random = io.read(file), np.random.default_rng([2410, number])
        wanted: list[list[str]] = [[name] for name in ARTEFACTS for _ in range(REPEATS)] + [[]] * REPEATS
        wanted += [sorted(random.choice(ARTEFACTS, 2, replace=False).tolist()) for _ in range(PAIRS)]
        untouched = True
        for names in wanted:
            case = f"{file.relative_to(data).as_posix()} {' + '.join(names) or 'clean'}"
            if names:
                made = add(volume, names, random)
            else:
                made, untouched = volume if untouched else mild(volume, random), False
            yield case, scans.person(file, data), names, made


def targets(rows: list[dict[str, Any]]) -> np.ndarray:
    """What is true of each scan, (N, 7) of 0 and 1."""
    return np.array([[not row["names"], *(name in row["names"] for name in ARTEFACTS)] for row in rows], float)


def measure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """F1 of each class, their mean with its 95% interval, the confusion table, and the calibration.

    A class is said to be there from a probability of one half on. Every class is as frequent as the others. The
    interval is over scans, drawn again; people are too few to be drawn.
    """
    truth, probability = targets(rows), np.array([row["probability"] for row in rows])
    single = np.array([len(row["names"]) < 2 for row in rows])
    said, count = probability > 0.5, len(CLASSES)

    def spread(of: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        return scores.bootstrap(lambda some: scores.macro_f1(of[some], predicted[some], count), np.arange(len(of)))

    one, likeliest = truth[single].argmax(1), probability[single].argmax(1)
    measured: dict[str, Any] = {
        "people": len({row["person"] for row in rows}),
        "scans": len({row["case"].split(" ")[0] for row in rows}),
        "simulated": len(rows),
        "macro_f1": spread(one, likeliest),
        "f1": {name: scores.f1(one == k, likeliest == k) for k, name in enumerate(CLASSES)},
        "macro_f1_each": spread(truth[single], said[single]),
        "auc": {name: scores.auc(truth[single, k], probability[single, k]) for k, name in enumerate(CLASSES)},
        "confusion": scores.confusion(one, likeliest, count).tolist(),
        "calibration_error": scores.calibration_error(truth.ravel(), probability.ravel()),
        "curve": scores.reliability(truth.ravel(), probability.ravel()),
        "cases": rows,
    }
    if not single.all():
        measured["pairs"] = int((~single).sum())
        found = (said & (truth > 0))[~single][:, 1:].sum() / truth[~single][:, 1:].sum()
        measured["found_in_pairs"] = float(found)
        measured["false_in_pairs"] = float((said & (truth == 0))[~single].any(1).mean())
    return measured
