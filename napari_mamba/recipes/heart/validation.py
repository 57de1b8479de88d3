"""Scores on the validation people while training: whole stacks, one pass each."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.recipes.heart import task

DIVISOR = 16
"""The networks halve the plane four times."""


@torch.inference_mode()
def validate(
    network: nn.Module, arrays: dict[str, np.ndarray], device: torch.device, along: str = "slices"
) -> dict[str, float]:
    """Mean cavity Dice at end diastole and end systole, and the mean error of the ejection fraction in points.

    A network that looks along time sees a beat in which nothing moves: stacks have no other phases.
    """
    dices: dict[str, list[float]] = defaultdict(list)
    volumes: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    names = ("images", "codes", "depths", "sides", "bright", "people", "phases")
    for image, codes, depth, side, bright, who, phase in zip(
        *(arrays[f"validation_{name}"] for name in names), strict=True
    ):
        stack = torch.from_numpy(image[:depth].astype(np.float32)).to(device) / float(bright)
        found = cavity(network, stack, float(side), along).cpu().numpy()
        drawn, known = codes[:depth] == task.CAVITY, codes[:depth] != task.UNKNOWN
        inside = found & known
        dices[str(phase)].append(2 * float((inside & drawn).sum()) / float(inside.sum() + drawn.sum()))
        volumes[str(who)][str(phase)] = (int(inside.sum()), int(drawn.sum()))
    ends = {f"dice_{name.lower()}": float(np.mean(dices[name])) for name in ("ED", "ES") if name in dices}
    fractions = [_fractions(of["ED"], of["ES"]) for of in volumes.values() if {"ED", "ES"} <= of.keys()]
    error = float(np.mean([abs(found - true) for found, true in fractions])) if fractions else float("nan")
    return ends | {"ef_error": error, "score": float(np.mean([one for each in dices.values() for one in each]))}


def _fractions(diastole: tuple[int, int], systole: tuple[int, int]) -> tuple[float, float]:
    """Ejection fraction in percent, found and true, from (found, true) volumes."""
    found, true = (100 * (1 - s / max(d, 1)) for d, s in zip(diastole, systole, strict=True))
    return found, true


def cavity(network: nn.Module, stack: Tensor, side: float, along: str) -> Tensor:
    """Which voxels of a stack (Z, Y, X), in 0 to 1 as prepared but for its pixels, are cavity."""
    size = [round(n * side / task.SPACING) for n in stack.shape[1:]]
    prepared = F.interpolate(stack.clamp(0, 1)[None], size, mode="bilinear", align_corners=False)[0]
    extra = [-n % DIVISOR for n in size]
    padded = F.pad(prepared, (0, extra[1], 0, extra[0]))
    with torch.autocast(stack.device.type, torch.bfloat16):
        logits = _answered(network, padded, along)
    logits = logits.float()[..., : size[0], : size[1]]
    back = F.interpolate(logits, stack.shape[1:], mode="bilinear", align_corners=False)
    return back.argmax(1) == task.CAVITY


def _answered(network: nn.Module, stack: Tensor, along: str) -> Tensor:
    """Logits (Z, K, Y, X) of a stack (Z, Y, X)."""
    if along == "plane":
        return network(stack[:, None])
    if along == "beat":
        frames = task.WINDOW[0]
        return torch.cat([network(one.expand(1, 1, frames, *one.shape))[:, :, frames // 2] for one in stack])
    return network(stack[None, None])[0].movedim(1, 0)
