"""How networks are used that do not make labels or an image of one: slides' features, two images to be registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from napari_mamba import models
from napari_mamba.bundles.importers.presets import NETWORK_SIZE
from napari_mamba.errors import InputError

PATCH_FEATURES = 1024
"""Of a patch, for the networks that do not say: GAT-Mamba's encoder is UNI."""
IMAGES = ("moving image", "fixed image")


def slide_usage(arguments: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """How a network for slides is used: its features as they are. Only names of its classes can be given.

    Survival's classes are intervals of time, whose hazards are sigmoids; a network without classes gives a risk.

    Raises
    ------
    InputError
        If something else was said of it.
    """
    _refuse(usage, ("preparation", "overlap", "mirror_axes"), "takes a slide's features as they are")
    width = next((arguments[key] for key in ("in_dim", "input_dim") if key in arguments), PATCH_FEATURES)
    if usage["tile"] is not None and list(usage["tile"]) != [width]:
        raise InputError(f"this network takes {width} features a patch, not {list(usage['tile'])}: leave the tile out")
    count = next((arguments[key] for key in ("n_classes", "num_classes") if key in arguments), 0)
    survival = bool(arguments.get("survival"))
    named = [f"interval {n + 1}" if survival else f"class {n}" for n in range(count)] or ["risk"]
    activation = "none" if not count else "sigmoid" if survival else "softmax"
    return {
        "tile": (width,),
        "channels": usage["channels"] or ("features of a patch",),
        "preparation": (),
        "classes": usage["classes"] or named,
        "activation": usage["activation"] or activation,
        "overlap": 0.0,
        "mirror_axes": (),
    }


def pair_usage(
    network: str, arguments: Mapping[str, Any], usage: Mapping[str, Any], asked: Sequence[int] | None
) -> dict[str, Any]:
    """How a network for registration is used: on both images whole, never mirrored.

    Where the weights are made for one size of images (`img_size`), the tile is that size, and the preparation ends on
    it: steps of a preset get it, and where none leads there, a window about the middle of what the images show does.

    Parameters
    ----------
    network : str
    arguments : mapping
        That build it.
    usage : mapping
        What is known of its use.
    asked : sequence of int, optional
        The tile that the user named.

    Raises
    ------
    InputError
        If the tile that was named is not the size that the weights are made for, or tiles were to overlap or to be
        mirrored.
    """
    _refuse(usage, ("overlap", "mirror_axes"), "sees both images whole and as they are")
    known = {**usage, "channels": usage["channels"] or IMAGES, "overlap": 0.0, "mirror_axes": ()}
    if "img_size" not in arguments:
        return {**known, "divisor": (_divisor(network, arguments),) * 3}
    size = [int(side) for side in arguments["img_size"]]
    if asked is not None and list(asked) != size:
        raise InputError(f"these weights register images of {size} voxels, not {list(asked)}: leave the tile out")
    steps = usage["preparation"]
    if steps is not None:
        steps = [{key: size if value == NETWORK_SIZE else value for key, value in step.items()} for step in steps]
        if not any(size in (step.get("size"), step.get("shape")) for step in steps):
            steps.append({"step": "centre", "size": size})
    return {**known, "tile": tuple(size), "divisor": tuple(size), "fixed": True, "preparation": steps}


def whole_usage(network: str, arguments: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """How a network is used that takes images whole: tiles shrink with them to what it divides the sides by."""
    if arguments.get("ape"):  # learned positions are of one size
        return dict(usage)
    divisor = _divisor(network, arguments)
    if odd := [side for side in usage["tile"] if side % divisor]:
        raise InputError(f"this network takes tiles whose sides are multiples of {divisor}, which {odd[0]} is not")
    return {**usage, "divisor": (divisor,) * len(usage["tile"]), "fit_tiles": True}


def _refuse(usage: Mapping[str, Any], unfollowed: Sequence[str], why: str) -> None:
    """Raise `InputError` where something was said that a network cannot follow."""
    if odd := [name for name in unfollowed if usage[name]]:
        raise InputError(f"this network {why}: leave {odd[0]} out")


def _divisor(network: str, arguments: Mapping[str, Any]) -> int:
    """What the sides of an image have to be multiples of."""
    with torch.device("meta"):
        return int(getattr(models.create(network, **arguments), "divisor", 1))
