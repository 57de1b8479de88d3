"""Writing the bundle that a recipe leaves, before anything is measured."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_mamba import bundles
from napari_mamba.bundles import Bundle, BundleSpec
from napari_mamba.bundles.vocabulary import Dtype
from napari_mamba.errors import InputError

NAMES = {"adamw": "AdamW", "muon": "Muon"}
"""Of the optimisers, in a card."""


def export_averaged(
    spec: BundleSpec,
    card: Callable[[dict[str, Any]], str],
    weights: dict[str, Tensor],
    destination: Path,
    history: dict[str, Any],
    dtype: Dtype = "float16",
) -> Path:
    """Write a bundle of one set of averaged weights; `history` says how far the schedule went.

    `card` makes the card's Markdown of the metrics, which hold `history` under "trained". Returns the bundle's folder.
    """
    return write_bundle(spec, card, [weights], destination, {"trained": history}, dtype)


def write_bundle(
    spec: BundleSpec,
    card: Callable[[dict[str, Any]], str],
    members: Sequence[dict[str, Tensor]],
    destination: Path,
    metrics: dict[str, Any],
    dtype: Dtype = "float16",
) -> Path:
    """Write a bundle of one or more networks' weights with the card of its metrics; returns its folder."""
    described = replace(spec, metrics=metrics)
    return bundles.save(destination, described, members, card(metrics), dtype=dtype, overwrite=True)


def interpolate_weights(weights: dict[str, Tensor], start: Bundle, share: float) -> dict[str, Tensor]:
    """Weights between those that a run began from and its own: a `share` of the way.

    On images unlike those trained on they may do better than both ends: Wortsman et al., Robust fine-tuning of
    zero-shot models (arXiv:2109.01903).

    Raises
    ------
    InputError
        If the bundle's network is another one, smaller for example.
    """
    network, *_ = start.networks()
    before = network.state_dict()
    if before.keys() != weights.keys() or any(before[k].shape != weights[k].shape for k in weights):
        raise InputError(f"{start.name} {start.version} is of another network: the two cannot be averaged")
    return {
        key: torch.lerp(before[key], weight.to(before[key]), share) if weight.is_floating_point() else weight
        for key, weight in weights.items()
    }


def describe_training(trained: dict[str, Any] | None, samples: str) -> str:
    """How long a network was trained, in a sentence or two; `samples` says what a step of one process has.

    Examples
    --------
    >>> print(describe_training({"steps": 7934, "minutes": 17.6, "device": "NVIDIA H200"}, "two windows"))
    7934 steps of two windows in 17.6 minutes on NVIDIA H200.
    """
    if not trained:
        return ""
    if members := trained.get("members"):
        return textwrap.fill(f"{len(members)} members: {'; '.join(_run(one, samples) for one in members)}.", 118)
    runs, start = [], trained.get("start")
    while start:
        runs.append(f"version {start['version']} ({_run(start, samples)})")
        start = start.get("start")
    began = f"It began from {', which began from '.join(runs)}; then " if runs else ""
    share = trained.get("blend")
    part = f" Of what that changed in the weights, {share:.0%} ships (arXiv:2109.01903)." if share else ""
    return textwrap.fill(f"{began}{_run(trained, samples)}.{part}", 118)


def _run(trained: dict[str, Any], samples: str) -> str:
    where = f" in {trained['minutes']} minutes on {trained['device']}" if "minutes" in trained else ""
    several = trained.get("processes", 1)
    told = f"{trained['steps']} steps of {samples}{f' on each of {several} GPUs' if several > 1 else ''}{where}"
    if "optimiser" not in trained:
        return told
    return f"{told} by {NAMES[trained['optimiser']]}, rate {trained['learning_rate']:g}"


def describe_optimiser(trained: Mapping[str, Any] | None) -> str:
    """By which optimisers, the first run's first; runs before there was another than AdamW do not say.

    Examples
    --------
    >>> describe_optimiser({"optimiser": "muon", "start": {"version": "1.0.0"}})
    'AdamW, then Muon'
    """
    used, run = [], trained or {"optimiser": "adamw"}
    run = run.get("members", [run])[0]
    while run:
        used.append(NAMES[run.get("optimiser", "adamw")])
        run = run.get("start", {})
    return ", then ".join(dict.fromkeys(reversed(used)))
