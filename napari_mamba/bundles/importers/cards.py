"""The card of an imported bundle: where its network and its weights are from, how it is used, under which terms."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from napari_mamba import models
from napari_mamba.bundles.spec import BundleSpec

LONG = 400
"""Characters of arguments that a card shows."""


def weights_card(spec: BundleSpec, path: Path) -> str:
    """The card of weights that came alone.

    Parameters
    ----------
    spec : BundleSpec
        What the bundle will say.
    path : Path
        The file, or the folder of files, that the weights were in.
    """
    read = f"`{path.name}`"
    if path.is_file():
        with path.open("rb") as file:
            read += f", SHA-256 `{hashlib.file_digest(file, 'sha256').hexdigest()}`"
    channels = ", ".join(channel.name for channel in spec.channels)
    steps = "\n".join(f"{n}. `{_short(step)}`" for n, step in enumerate(spec.preparation, start=1))
    classes = "\n".join(f"| {label.index} | {label.name} |" for label in spec.classes)
    tile = " x ".join(str(side) for side in spec.tile.size)
    parts = [
        f"# {spec.title}",
        spec.description,
        f"Not for clinical use. {spec.intended_use}",
        "## Origin",
        f"Weights: {read}.",
        origin(spec),
        "## Use",
        f"Input channels, in this order: {channels}. Tile: {tile}.",
        *([f"Preparation:\n\n{steps}"] if steps else []),
        *([f"| label | class |\n| --- | --- |\n{classes}"] if classes else []),
        "No results on held-out data came with the weights.",
        "## Licence",
        licence(spec),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def origin(spec: BundleSpec) -> str:
    """Which network it is, from which paper and whose code."""
    info = models.info(spec.network.name)
    paper = f", {info.paper}" if info.paper else ""
    code = f"; its authors' code: https://{info.repository}" if info.repository else ""
    arguments = _short(dict(spec.network.arguments))
    return f"Network: {info.title or info.name} (`{info.name}`){paper}{code}. Arguments: `{arguments}`."


def licence(spec: BundleSpec) -> str:
    """The terms that are known, and those that are not."""
    info = models.info(spec.network.name)
    stated = "states no licence" if info.licence == "none stated" else f"is under: {info.licence}"
    code = f"The code of the network's authors {stated}. " if info.repository else ""
    own = f"The weights are under: {spec.licence}." if spec.licence else "No licence of the weights came with them."
    return f"{code}{own} They are under the terms of whoever trained them: ask before you pass this bundle on."


def _short(value: object) -> str:
    text = json.dumps(value, default=list)
    return text if len(text) <= LONG else f"{text[:LONG]} …"
