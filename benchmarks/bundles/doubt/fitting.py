"""A bundle's familiarity out of features, the shares of images that it doubts, and the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.bundles.doubt.bundles import KINDS, Kind
from benchmarks.bundles.doubt.kinds.images import CHOOSE, ELSE, FIT, IN_A_WINDOW, LOOKS, TEST
from napari_mamba import bundles
from napari_mamba.bundles.guards.familiarity import PARTS, Familiarity
from napari_mamba.engine.familiarity.around_features import AROUND_GROUPS
from napari_mamba.engine.familiarity.image_features import GROUPS

Rows = dict[str, np.ndarray]
LEAST = 0.7
"""Least limit of the surprise about an image's kind: as likely of another as of the right one."""

JUST_BELOW = 0.99
"""Of the surprise about the first image that is not to be missed."""

MISSED = 0.02
"""Share of the other images that a limit may miss, so that a few near ones do not cost right ones."""

NONE = np.array([1e6])
"""Distances of other images where none is to be told."""


def used(rows: Rows, kind: Kind) -> np.ndarray:
    """Rows that count: not the changes that do not matter, and of kinds held out those of the test alone."""
    unseen = np.isin(rows["kind"], list(kind.unseen)) & (rows["part"] != TEST)
    return ~np.isin(rows["kind"], list(kind.neutral)) & ~unseen


def fit(name: str, rows: Rows) -> Familiarity:
    """From the images of the people who fit and of those who choose the limits."""
    from napari_mamba.training.scoring.familiarity import FLOOR, FLOORS, choose_limit, fit_kinds, fit_reference

    kind, found, floors = KINDS[name], {}, {**FLOORS, **KINDS[name].floors}
    counted = used(rows, kind)
    known = np.zeros(len(rows["part"]), bool)  # as of another kind already
    for part in sorted(kind.parts, key=lambda part: not part.endswith("_kinds")):
        values = rows[part.removesuffix("_kinds")].astype(np.float64)
        here = counted & whole(values)
        if part.startswith("depth"):
            here &= rows["right"] | (rows["kind"] == IN_A_WINDOW)
        groups = groups_of(name, part.removesuffix("_kinds"), values.shape[1])
        teach, choose = here & (rows["part"] == FIT), here & (rows["part"] == CHOOSE)
        right = rows["right"]
        if part.endswith("_kinds"):
            least = np.concatenate([np.full(size, floors.get(group, FLOOR)) for group, size in groups.items()])
            pairs = zip(right[teach], rows["kind"][teach], strict=True)
            looks = ["" if r else LOOKS.get(str(k), ELSE) for r, k in pairs]
            reference: Any = fit_kinds(values[teach], looks, least)
        else:
            reference = fit_reference(values[teach & right], groups, values[choose & right], floors)
        distances = np.full(len(values), np.nan)
        distances[here] = [reference.distance(one) for one in values[here]]
        strange = np.sort(distances[choose & ~right & ~known])[int(MISSED * (choose & ~right).sum()) :]
        if not part.endswith("_kinds"):  # no distance tells what lies among the right ones: it lowers no limit
            strange = strange[strange > np.quantile(distances[choose & right], 1 - MISSED)]
        limit = choose_limit(distances[choose & right], strange if len(strange) else NONE)
        if part.endswith("_kinds"):
            limit = max(limit, LEAST)
            known |= ~right & (np.nan_to_num(distances) > limit)
        else:  # as far as familiar ones leave it, where that saves more of the right ones than it misses of the others
            limits = (limit, choose_limit(distances[choose & right], NONE))
            limit = min(limits, key=lambda one: _wrong(distances > one, known, choose & right, choose & ~right))
        found[part] = replace(reference, limit=limit)
    counts = {
        p: {"right": count(rows, counted, p, True), "others": count(rows, counted, p, False)}
        for p in (FIT, CHOOSE, TEST)
    }
    layers = kind.layers if any(part.startswith("network") for part in kind.parts) else ()
    known_now = Familiarity(**found, layers=layers, fitted=counts, frame=kind.frame, structure=kind.structure)
    return spared(known_now, rows, counted & (rows["part"] == CHOOSE) & ~rows["right"]) if kind.sparing else known_now


def _wrong(far: np.ndarray, known: np.ndarray, right: np.ndarray, others: np.ndarray) -> float:
    """Share of the right images doubted, and of the others that are neither far nor known, together."""
    return float(np.mean(far[right]) + 1 - np.mean((far | known)[others]))


def spared(familiarity: Familiarity, rows: Rows, others: np.ndarray) -> Familiarity:
    """With the highest limit of the surprise that leaves `MISSED` of these other images undoubted, or its own."""
    kinds = familiarity.image_kinds
    assert kinds is not None
    without = replace(familiarity, image_kinds=replace(kinds, limit=np.inf))
    left = others & ~doubted(rows, without)["any"]
    surprises = np.sort([kinds.distance(one) for one in rows["image"][left].astype(np.float64)])
    allowed = int(MISSED * others.sum())
    if len(surprises) <= allowed:
        return familiarity
    return replace(familiarity, image_kinds=replace(kinds, limit=max(kinds.limit, JUST_BELOW * surprises[allowed])))


def groups_of(name: str, part: str, size: int) -> Mapping[str, int]:
    """Groups of features; of the network's two a layer, in halves: the channels' means, and their spreads."""
    if part == "around":
        return AROUND_GROUPS
    if part == "depth":
        return {"what lies how deep in it": size}
    if part == "image":
        ends = dict(zip(GROUPS, np.cumsum(list(GROUPS.values())), strict=True))
        return {group: GROUPS[group] for group, end in ends.items() if end <= size}
    modules = dict(bundles.load(name).networks()[0].named_modules())
    sizes = [_channels(modules[layer]) for layer in KINDS[name].layers]
    if 2 * sum(sizes) != size:
        raise SystemExit(f"the layers have {sizes} channels, and the cache holds {size} features: look again")
    pairs = zip(KINDS[name].layers, sizes, strict=True)
    return {f"{layer} {what}": n for layer, n in pairs for what in ("mean", "spread")}


def _channels(module: Any) -> int:
    """Channels of a module's output: those of its last convolution's or normalisation's parameters."""
    return [len(p) for n, p in module.named_parameters() if n.endswith(("weight", "bias"))][-1]


def whole(values: np.ndarray) -> np.ndarray:
    """Rows that have all features."""
    return np.isfinite(values).all(1) if values.shape[1] else np.zeros(len(values), bool)


def count(rows: Rows, counted: np.ndarray, part: str, right: bool) -> int:
    """Images of a part of the people, of the right kind or not."""
    return int((counted & (rows["part"] == part) & (rows["right"] == right)).sum())


def doubted(rows: Rows, familiarity: Familiarity) -> dict[str, np.ndarray]:
    """Which images are doubted, by their features of each sort and by any; a refused one is doubted too."""
    found = {}
    for part in PARTS:
        if part not in rows:  # of an older cache
            found[part] = rows["refused"]
            continue
        values, far = rows[part].astype(np.float64), rows["refused"].copy()
        for kept in (getattr(familiarity, part), getattr(familiarity, f"{part}_kinds")):
            if kept is not None and values.shape[1]:
                far |= [bool(np.isfinite(v).all()) and kept.distance(v) > kept.limit for v in values]
        found[part] = far
    return {**found, "any": np.logical_or.reduce([found[part] for part in PARTS])}


def table(name: str, rows: Rows, familiarity: Familiarity) -> str:
    """Shares doubted, by kind, of the people and sources that were left out; Markdown."""
    said, held = doubted(rows, familiarity), used(rows, KINDS[name]) & (rows["part"] == TEST)
    parts = [part for part in PARTS if getattr(familiarity, part) or getattr(familiarity, f"{part}_kinds")]
    words = {
        "image": "before the run",
        "network": "by the network",
        "around": "by what lies around the answer",
        "depth": "before the run, by what lies how deep",
    }
    lines = [f"| images | number | {' | '.join(words[p] for p in parts)} | in all |", f"|{' --- |' * (len(parts) + 3)}"]
    unseen = KINDS[name].unseen
    for right in (True, False):
        for kind in sorted({str(kind) for kind in rows["kind"][held & (rows["right"] == right)]}):
            here = held & (rows["kind"] == kind) & (rows["right"] == right)
            label = f"right: {kind}" if right else f"{kind}{' (kind held out)' if kind in unseen else ''}"
            shares = " | ".join(f"{100 * said[what][here].mean():.0f}%" for what in (*parts, "any"))
            lines.append(f"| {label} | {int(here.sum())} | {shares} |")
    return "\n".join(lines)


def summary(name: str, rows: Rows, familiarity: Familiarity) -> dict[str, Any]:
    """Images left out, of the right kind and of others, how many are doubted, and which others are not."""
    said, held = doubted(rows, familiarity)["any"], used(rows, KINDS[name]) & (rows["part"] == TEST)
    unseen = np.isin(rows["kind"], list(KINDS[name].unseen)) & ~rows["right"]
    masks = {
        "right": held & rows["right"],
        "others": held & ~rows["right"] & ~unseen,
        "held_out_kinds": held & ~rows["right"] & unseen,
    }
    missed = [str(kind) for kind in rows["kind"][held & ~rows["right"] & ~said]]
    return {
        **{key: {"images": int(mask.sum()), "doubted": int(said[mask].sum())} for key, mask in masks.items()},
        "missed": {kind: missed.count(kind) for kind in sorted(set(missed))},
        "kinds_held_out": sorted({str(kind) for kind in rows["kind"][masks["held_out_kinds"]]}),
        "network": familiarity.network is not None or familiarity.network_kinds is not None,
        "around": familiarity.around is not None or familiarity.around_kinds is not None,
    }
