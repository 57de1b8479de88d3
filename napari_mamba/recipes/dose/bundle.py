"""The bundle that `dose-headneck-ct` leaves, and its scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from napari_mamba import bundles
from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.recipes.dose import task
from napari_mamba.recipes.dose.data import ATTRIBUTION
from napari_mamba.training.weights.export import export_averaged

USE = (
    "Research on planning CTs of the head and neck with contoured targets and organs at risk, for intensity-modulated "
    "photon plans of nine coplanar beams. A prediction of what was done in one hospital, never a plan. "
    "Not for clinical use."
)


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    names = (
        "density relative to water, from the CT",
        *(f"mask of the {organ}" for organ in task.ORGANS),
        f"prescription in the targets, 1 is {task.UNIT:g} Gy",
        "mask of where there can be dose",
        "in that mask, the distance of slices in cm",
        "in that mask, the voxel side in a slice in cm",
    )
    return BundleSpec(
        name="dose-headneck-ct",
        version="1.0.0",
        title="Dose of a head-and-neck plan from CT and structures",
        task="restoration",  # of channels that a preparation makes of named structures
        network=Network("fluence_dose", task.arguments("umamba")),
        channels=tuple(Channel(name, "CT") for name in names),
        preparation=({"step": "orient", "axcodes": "RAS"},),
        tile=Tile((128, 128, 128), divisor=(16, 16, 16)),
        description=f"The dose in units of {task.UNIT:g} Gy: a fitted fluence of nine beams, corrected by a U-Mamba.",
        authors="The napari-mamba developers",
        copyright="Weights: MIT, as the data they were trained on",
        licence="MIT",
        data_source=ATTRIBUTION,
        intended_use=USE,
        references=(
            "Babier et al.: OpenKBP, Medical Physics 48:5549, 2021",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
        ),
    )


def export(weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    scores = metrics.get("validation")
    told = (
        f"Dose score {scores['dose_score']:.2f} Gy and DVH score {scores['dvh_score']:.2f} Gy on the challenge's "
        f"{scores['patients']} validation patients."
        if scores
        else "Not measured yet."
    )
    return f"# dose-headneck-ct\n\n{spec().description}\n\n{USE}\n\n## How good it is\n\n{told}\n"


def evaluate(
    data: Path,
    bundle: Path | str,
    *,
    device: str = "auto",
    write: bool = False,
    on_case: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """The challenge's scores of a bundle's network on the validation patients; `write` puts them into the bundle."""
    from napari_mamba.recipes.dose.recipe import DoseHeadNeck, scored
    from napari_mamba.training.loop import pick_device
    from napari_mamba.training.scoring.evaluation import write_numbers

    loaded, place = bundles.load(bundle), pick_device(device)
    network, *_ = loaded.networks()
    cases = {}
    for name, scores in scored(DoseHeadNeck(data), network.to(place).eval(), place):
        cases[name] = scores
        if on_case:
            on_case(name, scores)
    measured = summary(cases)
    if write:
        metrics = {**loaded.metrics, "validation": measured}
        write_numbers(loaded, metrics, card(metrics), {})
    return {**measured, "cases": cases}


def summary(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Both scores over all patients, and the mean difference of each structure's measures; Gy."""
    errors = np.array([scores["dose"] for scores in cases.values()])
    rows: dict[str, list[float]] = {}
    for scores in cases.values():
        for key, value in scores.items():
            if key != "dose":
                rows.setdefault(key, []).append(value)
    every = [value for values in rows.values() for value in values]
    return {
        "patients": len(cases),
        "dose_score": float(errors.mean()),
        "dose_score_sd": float(errors.std(ddof=1)) if len(errors) > 1 else 0.0,
        "dvh_score": float(np.mean(every)),
        "measures": {key: float(np.mean(values)) for key, values in rows.items()},
    }
