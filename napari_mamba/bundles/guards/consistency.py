"""The parts of what a bundle says about itself have to agree with one another, and with its network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from napari_mamba.bundles.guards.columns import check_columns
from napari_mamba.bundles.guards.kinds import (
    check_diffusion,
    check_features,
    check_frames,
    check_fusion,
    check_pair,
    images_of,
)
from napari_mamba.bundles.guards.planning import check_planning
from napari_mamba.bundles.vocabulary import (
    ACTIVATIONS,
    LATERALITIES,
    POSTPROCESSING_STEPS,
    STEPS,
    TASKS,
    WITHOUT_CLASSES,
)
from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_LONGEST_NAME, _LARGEST_SIDE, _MOST_VOXELS = 120, 4096, 2**28
_CLASS_ARGUMENTS = ("num_classes", "out_chans", "out_channels", "number_classes", "n_classes")
_CHANNEL_ARGUMENTS = ("input_channels", "in_chans", "in_channels", "in_ch", "inp_channels")


def check(spec: Any) -> None:
    """Raise `BundleError` if the parts of `spec` contradict one another."""
    if not _NAME.fullmatch(spec.name) or len(spec.name) > _LONGEST_NAME:
        raise BundleError(f"a bundle's name is made of a-z, 0-9, '.', '_' and '-', not {quoted(spec.name)}")
    if spec.task not in TASKS:
        raise BundleError(f"bundle {spec.name}: the task {quoted(spec.task)} is not one of {', '.join(TASKS)}")
    if spec.activation not in ACTIVATIONS:
        raise BundleError(
            f"bundle {spec.name}: activation {quoted(spec.activation)} is not one of {', '.join(ACTIVATIONS)}"
        )
    if not spec.channels:
        raise BundleError(f"bundle {spec.name}: names no input channel")
    if spec.member_networks and spec.member_networks[0] != spec.network:
        raise BundleError(f"bundle {spec.name}: the first of its members is another network than 'network'")
    check_planning(spec)
    check_columns(spec)
    _check_tile(spec)
    _check_classes(spec)
    told = sum(step.get("step") == "append_upsampling_channel" for step in spec.preparation)
    _check_count(spec, _CHANNEL_ARGUMENTS, images_of(spec) + told, "input channels")
    _check_steps(spec, "preparation", spec.preparation, STEPS)
    _check_steps(spec, "postprocessing", spec.postprocessing, POSTPROCESSING_STEPS)
    if spec.locator is not None and spec.task != "segmentation":
        raise BundleError(f"bundle {spec.name}: only a segmentation has another bundle find its field of view")
    if spec.postprocessing and (spec.task != "segmentation" or spec.activation == "sigmoid"):
        raise BundleError(f"bundle {spec.name}: only a segmentation of exclusive classes has postprocessing")


def _check_steps(
    spec: Any, what: str, steps: Sequence[Mapping[str, Any]], registry: Mapping[str, frozenset[str]]
) -> None:
    for step in steps:
        name = step.get("step", "")
        known = registry.get(name) if isinstance(name, str) else None
        if known is None:
            raise BundleError(f"bundle {spec.name}: {what} step {quoted(name)} is not one of {', '.join(registry)}")
        if odd := sorted(set(step) - known - {"step"}):
            raise BundleError(f"bundle {spec.name}: {what} step {step['step']!r} has no option {quoted(odd[0])}")


def _check_tile(spec: Any) -> None:
    tile, rank = spec.tile, len(spec.tile.size)
    if spec.task == "slide":
        check_features(spec)
        return
    if rank not in (2, 3) or min(tile.size) < 1:
        raise BundleError(f"bundle {spec.name}: a tile has 2 or 3 positive sizes, not {quoted(list(tile.size))}")
    if max(tile.size) > _LARGEST_SIDE or math.prod(tile.size) > _MOST_VOXELS:
        raise BundleError(f"bundle {spec.name}: a tile of {list(tile.size)} voxels is larger than any network takes")
    if tile.divisor and min(tile.divisor) < 1:
        raise BundleError(f"bundle {spec.name}: a tile's divisor is positive, not {quoted(list(tile.divisor))}")
    if not 0 <= tile.overlap < 1:
        raise BundleError(f"bundle {spec.name}: the tiles' overlap is in [0, 1), not {tile.overlap}")
    check_frames(spec, _MOST_VOXELS)
    if any(not 0 <= axis < rank for axis in tile.mirror_axes) or len(set(tile.mirror_axes)) < len(tile.mirror_axes):
        raise BundleError(f"bundle {spec.name}: mirror_axes {list(tile.mirror_axes)} are not axes of a {rank}D tile")
    if tile.divisor and (len(tile.divisor) != rank or any(s % d for s, d in zip(tile.size, tile.divisor, strict=True))):
        raise BundleError(f"bundle {spec.name}: the tile {list(tile.size)} is no multiple of {list(tile.divisor)}")
    if tile.reflect_below and (len(tile.reflect_below) != rank or min(tile.reflect_below) < 1):
        raise BundleError(f"bundle {spec.name}: reflect_below has one size for each of {rank} axes, of 1 or more")
    if tile.accumulate_dtype not in ("float32", "float16"):
        raise BundleError(f"bundle {spec.name}: tiles are summed in float32 or float16, not {tile.accumulate_dtype!r}")
    if tile.round_robin and spec.task == "classification":
        raise BundleError(
            f"bundle {spec.name}: every network of a classification answers every copy, so that "
            "its members cannot take flips in turn (round_robin)"
        )
    sides, labels = tile.left_right_pairs, {label.index for label in spec.classes}
    if len(sides) % 2 or len(set(sides)) < len(sides) or not set(sides) <= labels:
        raise BundleError(f"bundle {spec.name}: the tile's sides are pairs of its labels, each once, not {list(sides)}")
    for network in spec.networks_of(1):
        dims = network.arguments.get("spatial_dims", rank)
        if dims != rank:
            raise BundleError(f"bundle {spec.name}: a {dims}D network cannot take a {rank}D tile")


def _check_classes(spec: Any) -> None:
    if spec.task == "registration":
        check_pair(spec)
    if spec.task == "fusion":
        check_fusion(spec)
    if spec.task in ("diffusion", "prediction", "features"):
        check_diffusion(spec)
    if spec.task in WITHOUT_CLASSES:
        return
    if not spec.classes:
        raise BundleError(f"bundle {spec.name}: names no class, but its task is {spec.task}")
    _check_count(spec, _CLASS_ARGUMENTS, len(spec.classes), "classes")
    indices = [label.index for label in spec.classes]
    if len(set(indices)) < len(indices) or min(indices) < 0 or max(indices) > 65535:
        raise BundleError(f"bundle {spec.name}: class indices must differ and lie in 0..65535, not {quoted(indices)}")
    if spec.task == "segmentation" and spec.activation == "softmax" and indices[0] != 0:
        raise BundleError(f"bundle {spec.name}: the first of the softmax classes must be the background, index 0")
    for label in spec.classes:
        if not _COLOR.fullmatch(label.color):
            raise BundleError(
                f"bundle {spec.name}: the colour of {quoted(label.name)} is '#rrggbb', not {quoted(label.color)}"
            )
        if label.laterality not in LATERALITIES:
            raise BundleError(
                f"bundle {spec.name}: the laterality of {quoted(label.name)} is left, right, both or empty, not "
                f"{quoted(label.laterality)}"
            )


def _check_count(spec: Any, names: tuple[str, ...], count: int, what: str) -> None:
    for name, network in product(names, spec.networks_of(1)):
        wanted = network.arguments.get(name)
        if isinstance(wanted, int) and wanted != count:
            raise BundleError(f"bundle {spec.name}: lists {count} {what}, but its network has {wanted}")
