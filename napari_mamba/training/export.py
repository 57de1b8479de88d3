"""Writing the bundle that a recipe leaves, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba import bundles
from napari_mamba.bundles import BundleSpec


def export_averaged(
    spec: BundleSpec,
    card: Callable[[dict[str, Any]], str],
    weights: dict[str, Tensor],
    destination: Path,
    history: dict[str, Any],
) -> Path:
    """Write a bundle of one set of averaged weights, in float16; `history` says how far the schedule went.

    `card` makes the card's Markdown of the metrics, which hold `history` under "trained". Returns the bundle's folder.
    """
    metrics = {"trained": history}
    described = replace(spec, metrics=metrics)
    return bundles.save(destination, described, [weights], card(metrics), dtype="float16", overwrite=True)
