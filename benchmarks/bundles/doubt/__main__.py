"""How well a bundle tells images of its own kind from others.

    python -m benchmarks.bundles.doubt features hippocampus-mr --data DIR --cache FILE.npz [--no-network]
    python -m benchmarks.bundles.doubt fit hippocampus-mr --cache FILE.npz [--write]
    python -m benchmarks.bundles.doubt table hippocampus-mr --cache FILE.npz
    python -m benchmarks.bundles.doubt page

`features` looks at every image once, with the network where that is asked for, and takes the longest; it goes on where
it was stopped. `fit` makes the bundle's `familiarity.json` from the people who fit and those who choose the limits, and
with `--write` puts it into the bundle's folder, with the table. `table` has the shares of images doubted, by kind, of
people and sources that had no part in either. `page` writes what all bundles keep into docs/familiarity.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles.doubt import page
from benchmarks.bundles.doubt.bundles import KINDS
from benchmarks.bundles.doubt.fitting import Rows, fit, summary, table
from benchmarks.bundles.doubt.kinds.images import IN_A_WINDOW, Example
from napari_mamba import bundles
from napari_mamba.bundles import Bundle
from napari_mamba.bundles.guards.familiarity import PARTS, Familiarity
from napari_mamba.errors import NapariMambaError


def features(name: str, data: Path, cache: Path, network: bool, most: int | None = None) -> None:
    """Look at every image that is not in the cache yet, in an order that mixes them; `most` of them in all."""
    rows: list[dict[str, Any]] = _unpack(cache) if cache.exists() else []
    known = {row["name"] for row in rows}
    examples = list(KINDS[name].examples(data))
    order = np.random.default_rng(0).permutation(len(examples))[:most] if most else range(len(examples))
    bundle = bundles.kept(bundles.load(name))
    for example in (examples[i] for i in order):
        if example.name in known:
            continue
        rows.append(look(example, bundle, network))
        if len(rows) % 20 == 0:
            _pack(cache, rows)
            print(len(rows), flush=True)
    _pack(cache, rows)


def look(example: Example, bundle: Bundle, network: bool) -> dict[str, Any]:
    """An image's features; a bundle that refuses it has none of it."""
    from napari_mamba.engine.familiarity.around_features import around_features
    from napari_mamba.engine.familiarity.depth_features import depth_features
    from napari_mamba.engine.familiarity.extract import features_of
    from napari_mamba.engine.familiarity.image_features import image_features

    kind = KINDS[bundle.name]
    row = {"name": example.name, "part": example.part, "kind": example.kind, "right": example.right, "refused": False}
    found: dict[str, Any] = dict.fromkeys(PARTS)
    try:
        volume = example.make()
        if network and example.network and kind.layers:
            found["image"], found["network"] = features_of(volume, bundle, kind.layers)
        else:
            mask = any(channel.modality.upper() == "MASK" for channel in bundle.channels)
            found["image"] = image_features(volume, mask, kind.frame)
        if any(part.startswith("depth") for part in kind.parts) and (example.right or example.kind == IN_A_WINDOW):
            found["depth"] = depth_features(np.asarray(volume.data[0]), volume.spacing)
        if kind.structure and example.mask is not None:
            found["around"] = around_features(volume, example.mask(), kind.frame)
    except NapariMambaError as error:
        print(f"{example.name}: refused ({error})", flush=True)
        row["refused"] = True
    return {**row, **found}


def _pack(cache: Path, rows: list[dict[str, Any]]) -> None:
    arrays: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in ("name", "part", "kind", "right")}
    arrays["refused"] = np.array([row["refused"] for row in rows])
    for part in PARTS:
        size = max((len(row[part]) for row in rows if row[part] is not None), default=0)
        empty = np.full(size, np.nan)
        arrays[part] = np.array([empty if row[part] is None else row[part] for row in rows], np.float32)
    np.savez_compressed(cache, **arrays)


def _unpack(cache: Path) -> list[dict[str, Any]]:
    stored = dict(np.load(cache, allow_pickle=False))
    rows = [{key: values[i] for key, values in stored.items()} for i in range(len(stored["name"]))]
    for row in rows:
        for part in PARTS:
            row[part] = row[part] if part in row and len(row[part]) and np.isfinite(row[part]).all() else None
    return rows


def write(bundle: Bundle, rows: Rows, familiarity: Familiarity) -> None:
    """Put a familiarity into a bundle's folder, with how well it tells what was left out, and the card that says so."""
    from napari_mamba.recipes.registry import RECIPES

    found = {**summary(bundle.name, rows, familiarity), "table": table(bundle.name, rows, familiarity)}
    metrics = {**bundle.metrics, "familiar": found}
    card = RECIPES[bundle.name].load("card")(metrics)
    bundles.update(bundle, replace(bundle.spec, metrics=metrics), card, familiarity=familiarity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("features", "fit", "table", "page"))
    parser.add_argument("bundle", choices=tuple(KINDS), nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--no-network", action="store_true")
    parser.add_argument("--most", type=int, help="images looked at, of all")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.what == "page":
        page.write()
        return
    if options.bundle is None or options.cache is None:
        parser.error("name a bundle, and the file that keeps the features (--cache)")
    if options.what == "features":
        features(options.bundle, options.data, options.cache, not options.no_network, options.most)
        return
    bundle, rows = bundles.load(options.bundle), dict(np.load(options.cache, allow_pickle=False))
    known = bundle.familiarity if options.what == "table" else fit(options.bundle, rows)
    if known is None:
        raise SystemExit(f"{options.bundle} keeps nothing yet: fit it first")
    if options.write:
        write(bundle, rows, known)
    print(table(options.bundle, rows, known))


if __name__ == "__main__":
    main()
