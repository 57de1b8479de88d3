"""`models`, `info` and `devices`: what there is, as tables for people and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.tables import aligned

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def show_bundles(*, as_json: bool) -> None:
    """The bundles that can be run by name."""
    from napari_mamba import bundles

    found = bundles.available()
    if as_json:
        _print_json([bundles.facts(bundle) for bundle in found])
        return
    if not found:
        print("no bundles: make one with napari-mamba import", file=sys.stderr)
        return
    rows = [[b.name, b.version, b.task, ", ".join(c.name for c in b.channels), b.title] for b in found]
    show_table(["name", "version", "task", "input", "title"], rows)


def show_architectures(*, as_json: bool) -> None:
    """The networks that a bundle can hold."""
    from dataclasses import asdict

    from napari_mamba import models
    from napari_mamba.models.measured import Measured, measured

    found = models.list_models()
    known = measured()
    vectors = {model.name: {name: known.get(name, Measured()) for name in model.vectors} for model in found}
    if as_json:
        keys = ("name", "title", "task", "spatial_dims", "paper", "repository", "licence", "scan_order")
        checks = {model: {name: asdict(one) for name, one in of.items()} for model, of in vectors.items()}
        _print_json([{key: getattr(m, key) for key in keys} | {"vectors": checks[m.name]} for m in found])
        return
    rows = [
        [m.name, m.task, "/".join(f"{n}D" for n in m.spatial_dims), m.scan_order, m.paper, m.repository, m.licence]
        for m in found
    ]
    show_table(["name", "task", "dims", "scan order", "paper", "repository", "licence"], rows)
    print()
    rows = [
        [
            *(model, vector, _number(one.parameters, "d"), "x".join(map(str, one.input))),
            *(_number(one.relative_l2, ".1e"), _number(one.cpu_seconds, "g")),
        ]
        for model, of in vectors.items()
        for vector, one in of.items()
    ]
    show_table(["name", "checked against", "parameters", "input", "relative L2", "CPU seconds"], rows)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def show_info(name: str, *, as_json: bool, card: bool) -> None:
    """Everything a bundle says about itself."""
    from napari_mamba import bundles

    bundle = bundles.load(name)
    if card:
        _show_markdown(bundle.card or f"{bundle.name} has no card.")
        return
    if as_json:
        _print_json(bundles.facts(bundle))
        return
    for key, value in _in_words(bundle).items():
        print(f"{key:<13}{value}")
    if bundle.classes:
        print()
        rows = [[str(c.index), c.name, c.color, c.code, c.laterality] for c in bundle.classes]
        show_table(["index", "class", "colour", "code", "side"], rows)


def _in_words(bundle: Bundle) -> dict[str, str]:
    steps = []
    for step in bundle.preparation:
        options = " ".join(f"{key}={value}" for key, value in step.items() if key != "step")
        steps.append(f"{step['step']} {options}".strip())
    size, mirrored = "x".join(map(str, bundle.tile.size)), ", ".join(map(str, bundle.tile.mirror_axes))
    words = {
        "bundle": f"{bundle.name} {bundle.version}",
        "title": bundle.title,
        "task": bundle.task,
        "for": bundle.intended_use,
        "network": f"{bundle.network.name}, {len(bundle.weights)} set(s) of weights",
        "channels": "; ".join(f"{c.name} ({c.modality})" if c.modality else c.name for c in bundle.channels),
        "preparation": "; ".join(steps),
        "tile": f"{size} voxels, overlap {bundle.tile.overlap:g}"
        + (f", mirrored along {mirrored}" if mirrored else "")
        + (", one ensemble member per flip (round robin)" if bundle.tile.round_robin else ""),
        "trained on": bundle.data_source,
        "licence": bundle.licence,
        "references": "; ".join(bundle.references),
        "path": str(bundle.path),
        "sha256": bundle.sha256,
    }
    return {key: value for key, value in words.items() if value}


def show_devices(*, as_json: bool) -> None:
    """The devices a run can use here, and the precision "auto" means on each."""
    from napari_mamba.engine import available_devices, choose_device

    rows = []
    for name in available_devices():
        device = choose_device(name)
        rows.append({"device": name, "hardware": device.name, "precision": device.precision})
    if as_json:
        _print_json(rows)
        return
    show_table(["device", "hardware", "precision"], [list(row.values()) for row in rows])


def show_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A ruled table at a terminal, aligned columns elsewhere."""
    if not sys.stdout.isatty():
        print(aligned(headings, rows))
        return
    from rich import print as show
    from rich.markup import escape
    from rich.table import Table

    table = Table(*headings)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    show(table)


def _show_markdown(text: str) -> None:
    if not sys.stdout.isatty():
        print(text)
        return
    from rich import print as show
    from rich.markdown import Markdown

    show(Markdown(text))


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
