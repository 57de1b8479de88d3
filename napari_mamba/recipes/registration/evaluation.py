"""How well held-out heads are registered, by each step of this library, and by ANTs' SyN where it is installed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import torch

from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.registering.options import RegistrationOptions
from napari_mamba.engine.registering.register import register
from napari_mamba.recipes.brain.structures import INDICES
from napari_mamba.recipes.measurement import Measurement, OnCase, measured_on
from napari_mamba.recipes.registration.recipe import PAIRS, BrainRegistration
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.scores import dice, summary
from napari_mamba.volume import Volume

Warped = tuple[np.ndarray, float | None]
"""The moving image's classes (Z, Y, X) on the fixed image's grid, and how many percent of the voxels fold."""


def evaluate(
    recipe: Recipe, bundle: Bundle | None, options: RunOptions, on_case: OnCase, methods: str = ""
) -> Measurement:
    """Mean Dice of the structures, folding and seconds of each method over pairs of held-out heads.

    `methods` names some of `recipes.registration.bundle.ROWS`, with commas between; all that can be run if empty.
    """
    assert isinstance(recipe, BrainRegistration)
    runners = _runners(bundle, options)
    wanted = [name for name in methods.split(",") if name] or list(runners)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted if name in runners}
    cases = []
    for moving_map, fixed_map, *kinds in PAIRS:
        pair = held_out_pair(recipe, (moving_map, fixed_map), tuple(kinds))
        case: dict[str, Any] = {"pair": f"{kinds[0]} of map {moving_map} on {kinds[1]} of map {fixed_map}"}
        for name in rows:
            began = perf_counter()
            labels, folded = runners[name](*pair)
            seconds = perf_counter() - began
            overlap = dice(labels, pair[3].data[0], list(range(1, len(INDICES))))
            row = {"dice": float(np.nanmean(overlap)), "folded": folded, "seconds": seconds}
            rows[name].append(row)
            case[name] = row
        cases.append(case)
        on_case(case["pair"], case)
    found = {name: _summary(measured) for name, measured in rows.items()}
    measured = {
        "pairs": len(cases),
        "structures": len(INDICES) - 1,
        "methods": found,
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "cases": cases,
    }
    return measured_on("validation", measured, dict)


def held_out_pair(
    recipe: BrainRegistration, maps: tuple[int, int], kinds: tuple[str, ...]
) -> tuple[Volume, Volume, Volume, Volume]:
    """Two held-out heads: the moving and the fixed image, the moving and the fixed classes, on one grid of 1 mm."""
    heads = recipe.heads(torch.device("cpu"), held_out=True)
    images, classes = recipe.pair(heads, maps, (20232, maps[0]), kinds)
    affine = np.eye(4)[[2, 1, 0, 3]]
    moving, fixed = (Volume(images[:, side].numpy(), affine) for side in (0, 1))
    moving_classes, fixed_classes = (Volume(classes[:, side].numpy(), affine) for side in (0, 1))
    return moving, fixed, moving_classes, fixed_classes


def _runners(bundle: Bundle | None, options: RunOptions) -> dict[str, Callable[..., Warped]]:
    """What registers a pair, by name; each takes the moving and fixed image, the moving and fixed classes."""
    plain = RegistrationOptions(refine=False, device=options.device, precision=options.precision)
    warped = replace(plain, refine=True)
    runners: dict[str, Callable[..., Warped]] = {
        "before": lambda moving, fixed, labels, truth: (labels.data[0], None),
        "affine": lambda *pair: _registered(None, plain, *pair),
        "refined": lambda *pair: _registered(None, warped, *pair),
    }
    if bundle is not None:
        runners["network"] = lambda *pair: _registered(bundle, plain, *pair)
        runners["both"] = lambda *pair: _registered(bundle, warped, *pair)
    try:
        import ants  # noqa: F401
    except ImportError:
        return runners
    return {**runners, "syn": _syn}


def _registered(
    bundle: Bundle | None, options: RegistrationOptions, moving: Volume, fixed: Volume, labels: Volume, truth: Volume
) -> Warped:
    found = to_end(register(fixed, moving, bundle, options))
    return np.asarray(found.carry(labels, fixed).data)[0], found.facts["folded_percent"]


def _syn(moving: Volume, fixed: Volume, labels: Volume, truth: Volume) -> Warped:
    """antspyx's `SyN`: an affine first, then the warp, both by mutual information, with its own defaults."""
    import ants

    still, other = (ants.from_numpy(np.asarray(one.data[0], np.float32)) for one in (fixed, moving))
    found = ants.registration(still, other, "SyN", syn_metric="mattes", aff_metric="mattes", random_seed=2410)
    names = ants.from_numpy(np.asarray(labels.data[0], np.float32))
    moved = ants.apply_transforms(still, names, found["fwdtransforms"], interpolator="nearestNeighbor")
    change = ants.create_jacobian_determinant_image(still, found["fwdtransforms"][0])
    return moved.numpy().astype(np.uint8), 100 * float((change.numpy() <= 0).mean())


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    folded = [row["folded"] for row in rows if row["folded"] is not None]
    return {
        "dice": summary([row["dice"] for row in rows]),
        "folded": float(np.mean(folded)) if folded else None,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
    }
