"""How well a bundle tells images of its own kind from others.

    python -m benchmarks.bundles.doubt features hippocampus-mr --data DIR --cache FILE.npz
    python -m benchmarks.bundles.doubt fit hippocampus-mr --cache FILE.npz [--write]
    python -m benchmarks.bundles.doubt table hippocampus-mr --cache FILE.npz

`features` looks at every image once, with the network, and takes the longest; it goes on where it was stopped. `fit`
makes the bundle's `familiarity.json` from the people who fit and those who choose the limits, and with `--write` puts
it into the bundle's folder. `table` has the shares of images doubted, by kind, of people and sources that had no part
in either.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles.doubt.bundles import KINDS, Kind
from benchmarks.bundles.doubt.images import CHOOSE, FIT, TEST
from napari_mamba import bundles
from napari_mamba.bundles import Bundle
from napari_mamba.bundles.guards.familiarity import PARTS, Familiarity, Reference
from napari_mamba.engine.familiarity.image_features import GROUPS
from napari_mamba.errors import NapariMambaError

Rows = dict[str, np.ndarray]


def features(name: str, data: Path, cache: Path, network: bool, most: int | None = None) -> None:
    """Look at every image that is not in the cache yet, in an order that mixes them; `most` of them in all."""
    from napari_mamba.engine.familiarity.extract import features_of

    bundle, kind = bundles.kept(bundles.load(name)), KINDS[name]
    rows: list[dict[str, Any]] = _unpack(cache) if cache.exists() else []
    known = {row["name"] for row in rows}
    examples = list(kind.examples(data))
    mixed = np.random.default_rng(0).permutation(len(examples))[:most]
    for example in (examples[i] for i in mixed):
        if example.name in known:
            continue
        found: tuple[Any, Any] = (None, None)
        try:
            found = features_of(example.make(), bundle, kind.layers if network and example.network else ())
        except NapariMambaError as error:
            print(f"{example.name}: refused ({error})", flush=True)
        row = {"name": example.name, "part": example.part, "kind": example.kind, "right": example.right}
        rows.append({**row, "image": found[0], "network": found[1], "refused": found[0] is None})
        if len(rows) % 20 == 0:
            _pack(cache, rows)
            print(len(rows), flush=True)
    _pack(cache, rows)


def _pack(cache: Path, rows: list[dict[str, Any]]) -> None:
    arrays: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in ("name", "part", "kind", "right")}
    arrays["refused"] = np.array([row["refused"] for row in rows])
    for part in PARTS:
        size = max((len(row[part]) for row in rows if row[part] is not None), default=0)
        empty = np.full(size, np.nan)
        arrays[part] = np.array([empty if row[part] is None else row[part] for row in rows], np.float32)
    np.savez_compressed(cache, **arrays)


def _unpack(cache: Path) -> list[dict[str, Any]]:
    stored = np.load(cache, allow_pickle=False)
    rows = [{key: stored[key][i] for key in stored.files} for i in range(len(stored["name"]))]
    for row in rows:
        for part in PARTS:
            row[part] = row[part] if len(row[part]) and np.isfinite(row[part]).all() else None
    return rows


def fit(name: str, cache: Path) -> Familiarity:
    """A bundle's familiarity, from the images of the people who fit it and of those who choose."""
    from napari_mamba.training.scoring.familiarity import FLOORS, choose_limit, fit_reference

    rows: Rows = dict(np.load(cache, allow_pickle=False))
    found: dict[str, Reference] = {}
    floors = {**FLOORS, **KINDS[name].floors}
    for part in PARTS:
        values, whole = rows[part].astype(np.float64), _whole(rows, part)
        right, chosen = rows["right"] & whole, (rows["part"] == CHOOSE) & whole
        if not right.any():
            continue
        groups = GROUPS if part == "image" else network_groups(KINDS[name], values.shape[1], name)
        reference = fit_reference(values[right & (rows["part"] == FIT)], groups, values[right & chosen], floors)
        distances = np.array([reference.distance(one) if np.isfinite(one).all() else np.nan for one in values])
        limit = choose_limit(distances[right & chosen], distances[~rows["right"] & chosen])
        found[part] = replace(reference, limit=limit)
    counts = {p: {"right": _count(rows, p, True), "others": _count(rows, p, False)} for p in (FIT, CHOOSE, TEST)}
    return Familiarity(**found, layers=KINDS[name].layers if "network" in found else (), fitted=counts)


def network_groups(kind: Kind, size: int, name: str) -> Mapping[str, int]:
    """Two groups a layer, in halves: the channels' means, and their spreads."""
    modules = dict(bundles.load(name).networks()[0].named_modules())
    sizes = [_channels(modules[layer]) for layer in kind.layers]
    if 2 * sum(sizes) != size:
        raise SystemExit(f"the layers have {sizes} channels, and the cache holds {size} features: look again")
    return {f"{layer} {what}": n for layer, n in zip(kind.layers, sizes, strict=True) for what in ("mean", "spread")}


def _channels(module: Any) -> int:
    """Channels of a module's output: those of its last convolution's or normalisation's parameters."""
    return [len(p) for n, p in module.named_parameters() if n.endswith(("weight", "bias"))][-1]


def _whole(rows: Rows, part: str) -> np.ndarray:
    values = rows[part]
    return np.isfinite(values).all(1) if values.shape[1] else np.zeros(len(values), bool)


def _count(rows: Rows, part: str, right: bool) -> int:
    return int(((rows["part"] == part) & (rows["right"] == right)).sum())


def doubted(rows: Rows, familiarity: Familiarity) -> dict[str, np.ndarray]:
    """Which images are doubted: before the run, by the network, and by either; a refused one is doubted too."""
    found = {}
    for part in PARTS:
        reference, values = getattr(familiarity, part), rows[part].astype(np.float64)
        far = rows["refused"].copy()
        if reference is not None:
            far |= [bool(np.isfinite(v).all()) and reference.distance(v) > reference.limit for v in values]
        found[part] = far
    return {**found, "either": found["image"] | found["network"]}


def table(rows: Rows, familiarity: Familiarity) -> str:
    """Shares doubted, by kind, of the people and sources that were left out; Markdown."""
    said, held = doubted(rows, familiarity), rows["part"] == TEST
    lines = ["| images | number | before the run | by the network | either |", "| --- | --- | --- | --- | --- |"]
    kinds = ["right", *sorted({str(kind) for kind in rows["kind"][held & ~rows["right"]]})]
    masks = [(kind, held & (rows["kind"] == kind)) for kind in kinds]
    for kind, here in [*masks, ("all of other kinds", held & ~rows["right"])]:
        shares = " | ".join(f"{100 * said[what][here].mean():.0f}%" for what in (*PARTS, "either"))
        lines.append(f"| {kind} | {int(here.sum())} | {shares} |")
    return "\n".join(lines)


def write(bundle: Bundle, rows: Rows, familiarity: Familiarity) -> None:
    """Put a familiarity into a bundle's folder, with how well it tells what was left out, and the card that says so."""
    from napari_mamba.recipes.registry import RECIPES

    metrics = {**bundle.metrics, "familiar": summary(rows, familiarity)}
    card = RECIPES[bundle.name].load("card")(metrics)
    bundles.update(bundle, replace(bundle.spec, metrics=metrics), card, familiarity=familiarity)


def summary(rows: Rows, familiarity: Familiarity) -> dict[str, Any]:
    """Images left out, of the right kind and of others, how many are doubted, and which others are not."""
    said, held = doubted(rows, familiarity)["either"], rows["part"] == TEST
    masks = {"right": held & rows["right"], "others": held & ~rows["right"]}
    missed = [str(kind) for kind in rows["kind"][masks["others"] & ~said]]
    return {
        **{name: {"images": int(mask.sum()), "doubted": int(said[mask].sum())} for name, mask in masks.items()},
        "missed": {kind: missed.count(kind) for kind in sorted(set(missed))},
        "network": familiarity.network is not None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("features", "fit", "table"))
    parser.add_argument("bundle", choices=tuple(KINDS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--no-network", action="store_true")
    parser.add_argument("--most", type=int, help="images looked at, of all")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.what == "features":
        features(options.bundle, options.data, options.cache, not options.no_network, options.most)
        return
    bundle = bundles.load(options.bundle)
    known = bundle.familiarity if options.what == "table" else fit(options.bundle, options.cache)
    if known is None:
        raise SystemExit(f"{options.bundle} keeps nothing yet: fit it first")
    rows: Rows = dict(np.load(options.cache, allow_pickle=False))
    if options.write:
        write(bundle, rows, known)
    print(table(rows, known))


if __name__ == "__main__":
    main()
