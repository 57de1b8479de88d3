"""How well held-out heads are registered, by each step of this library, and by ANTs' SyN where it is installed."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import perf_counter, process_time
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
from napari_mamba.recipes.registration.bundle import FIGURE
from napari_mamba.recipes.registration.figures import failures
from napari_mamba.recipes.registration.recipe import PAIRS, BrainRegistration
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.scores import dice, summary
from napari_mamba.volume import Volume

TESTED = (*PAIRS, (1, 0, "t2", "flair"), (2, 1, "random", "t1"), (0, 2, "t1", "random"))
"""Held-out maps, moving and fixed, and their contrasts: every one of the three onto every other."""

Warped = tuple[np.ndarray, float | None]
"""The moving image's classes (Z, Y, X) on the fixed image's grid, and how many percent of the voxels fold."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two held-out heads on one grid of 1 mm: images and classes."""

    name: str
    moving: Volume
    fixed: Volume
    labels: Volume
    truth: Volume


def evaluate(
    recipe: Recipe, bundle: Bundle | None, options: RunOptions, on_case: OnCase, methods: str = ""
) -> Measurement:
    """Mean Dice of the structures, folding and seconds of each method over pairs of held-out heads.

    `methods` names some of `recipes.registration.bundle.ROWS`, with commas between; all that can be run if empty.
    """
    assert isinstance(recipe, BrainRegistration)
    runners = runners_of(bundle, options)
    wanted = [name for name in methods.split(",") if name] or list(runners)
    cases: list[dict[str, Any]] = []
    worst: tuple[float, Pair, np.ndarray] | None = None
    for number in range(len(TESTED)):
        pair = held_out_pair(recipe, number)
        case: dict[str, Any] = {"pair": pair.name}
        for name in wanted:
            case[name], labels = measured(pair, runners[name])
            if name == wanted[-1] and (worst is None or case[name]["dice"] < worst[0]):
                worst = (case[name]["dice"], pair, labels)
        cases.append(case)
        on_case(pair.name, case)

    def figures() -> dict[str, bytes]:
        if worst is None:
            return {}
        _, pair, labels = worst
        return {FIGURE: failures(np.asarray(pair.fixed.data[0]), np.asarray(pair.truth.data[0]), labels, pair.name)}

    found = measured_on("validation", summarised(cases, wanted), figures)
    return replace(found, metrics={**found.metrics, "failures": [FIGURE]})


def summarised(cases: list[dict[str, Any]], methods: Iterable[str]) -> dict[str, Any]:
    """What the card tells of some methods, each over the cases on which it was measured."""
    both = [case for case in cases if "syn" in case and "network" in case]
    beside = (
        {name: float(np.mean([case[name]["dice"] for case in both])) for name in ("network", "syn")} if both else {}
    )
    return {
        "pairs": len(cases),
        "structures": len(INDICES) - 1,
        "methods": {name: _summary([case[name] for case in cases if name in case]) for name in methods},
        "beside_syn": {"pairs": len(both), **beside},
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "cases": cases,
    }


def measured(pair: Pair, runner: Callable[[Pair], Warped]) -> tuple[dict[str, Any], np.ndarray]:
    """Dice, folding and times of one method on a pair, and the moved classes (Z, Y, X)."""
    began, spent = perf_counter(), process_time()
    labels, folded = runner(pair)
    seconds, spent = perf_counter() - began, process_time() - spent
    overlap = dice(labels, np.asarray(pair.truth.data[0]), list(range(1, len(INDICES))))
    row = {"dice": float(np.nanmean(overlap)), "folded": folded, "seconds": seconds, "cpu_seconds": spent}
    return row, labels


def held_out_pair(recipe: BrainRegistration, number: int) -> Pair:
    """The images and classes of one of `TESTED`; those of `PAIRS` are the ones that training looks at."""
    moving_map, fixed_map, *kinds = TESTED[number]
    heads = recipe.heads(torch.device("cpu"), held_out=True)
    seed = (20232 if number < len(PAIRS) else 20233, int(moving_map))
    images, classes = recipe.pair(heads, (int(moving_map), int(fixed_map)), seed, tuple(map(str, kinds)))
    affine = np.eye(4)[[2, 1, 0, 3]]
    volumes = [Volume(one[:, side].numpy(), affine) for one in (images, classes) for side in (0, 1)]
    return Pair(f"{kinds[0]} of map {moving_map} on {kinds[1]} of map {fixed_map}", *volumes)


def runners_of(bundle: Bundle | None, options: RunOptions) -> dict[str, Callable[[Pair], Warped]]:
    """What registers a pair, by the names of `recipes.registration.bundle.ROWS`."""
    plain = RegistrationOptions(refine=False, device=options.device, precision=options.precision)
    warped = replace(plain, refine=True)
    runners: dict[str, Callable[[Pair], Warped]] = {
        "before": lambda pair: (np.asarray(pair.labels.data[0]), None),
        "affine": lambda pair: _registered(None, plain, pair),
        "refined": lambda pair: _registered(None, warped, pair),
    }
    if bundle is not None:
        runners["network"] = lambda pair: _registered(bundle, plain, pair)
        runners["both"] = lambda pair: _registered(bundle, warped, pair)
    try:
        import ants  # noqa: F401
    except ImportError:
        return runners
    return {"syn": _syn, **runners}


def _registered(bundle: Bundle | None, options: RegistrationOptions, pair: Pair) -> Warped:
    found = to_end(register(pair.fixed, pair.moving, bundle, options))
    return np.asarray(found.carry(pair.labels, pair.fixed).data)[0], found.facts["folded_percent"]


def _syn(pair: Pair) -> Warped:
    """antspyx's `SyN`: an affine first, then the warp, both by mutual information, with its own defaults."""
    import ants

    still, other = (ants.from_numpy(np.asarray(one.data[0], np.float32)) for one in (pair.fixed, pair.moving))
    found = ants.registration(still, other, "SyN", syn_metric="mattes", aff_metric="mattes", random_seed=2410)
    names = ants.from_numpy(np.asarray(pair.labels.data[0], np.float32))
    moved = ants.apply_transforms(still, names, found["fwdtransforms"], interpolator="nearestNeighbor")
    change = ants.create_jacobian_determinant_image(still, found["fwdtransforms"][0])
    return moved.numpy().astype(np.uint8), 100 * float((change.numpy() <= 0).mean())


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    folded = [row["folded"] for row in rows if row["folded"] is not None]
    return {
        "dice": summary([row["dice"] for row in rows]),
        "folded": float(np.mean(folded)) if folded else None,
        "most_folded": float(np.max(folded)) if folded else None,
        "seconds": float(np.mean([row["seconds"] for row in rows])),
        "cpu_seconds": float(np.mean([row["cpu_seconds"] for row in rows])),
    }
