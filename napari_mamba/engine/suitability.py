"""Whether an image suits a bundle, asked without a run: from the image's grid, its type and a look at its values.

A window tells it before anybody waits for a run that refuses, or that warns of what its first second would have shown.
No torch here, and nothing of the size of the image is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_mamba.engine.checks import (
    check_mask,
    check_planned,
    check_row,
    grid_warnings,
    size_warnings,
    slice_warnings,
    takes_rgb,
    trained_on,
    value_warnings,
)
from napari_mamba.engine.familiarity.judge import judge_image, unfamiliar
from napari_mamba.engine.locating import installed_locator, is_located
from napari_mamba.engine.options import AXES, RunOptions, check_followed
from napari_mamba.engine.preparation.body import rounded_up
from napari_mamba.engine.preparation.crop_or_pad import coverage_warnings
from napari_mamba.engine.preparation.grids.resampling import new_shape
from napari_mamba.engine.preparation.grids.spacing import wanted_spacing
from napari_mamba.engine.preparation.grids.upsampling import finer_grid
from napari_mamba.engine.preparation.state import State
from napari_mamba.engine.preparation.steps import STEPS
from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.volume import Volume

_MOST_READ = 2**21
"""Voxels of an image in memory that are looked at; of a larger one, every so many slices."""
_ONLY_GEOMETRY = ("orient", "transpose", "slice_axis_first", "field_of_view")


@dataclass(frozen=True)
class Suitability:
    """What a run would say at its start.

    Parameters
    ----------
    refusals : tuple of str
        Why it would stop there; empty where it would not.
    warnings : tuple of str
        What its result would be doubted for.
    """

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Neither refused nor doubted."""
        return not self.refusals and not self.warnings


def examine(volume: Volume, bundle: Any, options: RunOptions | None = None, values: bool = True) -> Suitability:
    """What the engine would find at the start of a run.

    Parameters
    ----------
    volume : Volume
        Data (C, Z, Y, X). Values that are not in memory (Dask, Zarr) are not read, and of a large image some slices.
    bundle : Bundle
    options : RunOptions, optional
    values : bool
        Look at values too, which takes some milliseconds.

    Returns
    -------
    Suitability

    Examples
    --------
    >>> from napari_mamba import bundles
    >>> small = Volume(np.random.default_rng(0).random((1, 20, 20, 20)))
    >>> bundle = next(b for b in bundles.available() if b.name == "hippocampus-mr")
    >>> examine(small, bundle).warnings[0][:34]
    'After preparation the image has 20'
    """
    options = options or RunOptions()
    found = _Findings()
    found.collect(lambda: _check_kind(volume, bundle))
    found.collect(lambda: check_row(bundle, options.row))
    found.collect(lambda: check_followed(bundle, options))
    if found.refusals:  # what follows would speak of the wrong channels
        return found.result()
    in_memory = isinstance(volume.data, np.ndarray) or getattr(volume.data, "in_memory", False)
    if values and in_memory:
        found.collect(lambda: _look_at_values(volume, bundle, options))
    found.collect(lambda: grid_warnings(volume) + slice_warnings(volume, bundle))
    if options.region is None and is_located(volume, bundle):  # what the network will see is not known yet
        found.collect(lambda: _missing_locator(bundle))
        return found.result()
    found.collect(lambda: _layout(volume, bundle, options))
    if values and in_memory and not found.refusals and options.region is None:
        found.collect(lambda: unfamiliar(judge_image(volume, bundle), bundle.name))
    return found.result()


class _Findings:
    def __init__(self) -> None:
        self.refusals: list[str] = []
        self.warnings: list[str] = []

    def collect(self, check: Any) -> None:
        try:
            self.warnings += [warning for warning in check() or () if warning not in self.warnings]
        except NapariMambaError as error:
            self.refusals.append(str(error))

    def result(self) -> Suitability:
        return Suitability(tuple(self.refusals), tuple(self.warnings))


def _missing_locator(bundle: Any) -> list[str]:
    """Raise `BundleError` where the bundle that finds another's place is not installed."""
    installed_locator(bundle)
    return []


def _check_kind(volume: Volume, bundle: Any) -> list[str]:
    """The channels, their type and the units, as `checks.load_checked` wants them."""
    check_planned(volume, bundle)
    names = [channel.name for channel in bundle.channels]
    if volume.channels != len(names) and not (volume.channels == 1 and takes_rgb(bundle)):
        wanted = f"{len(names)} channel{'s' if len(names) > 1 else ''}"
        raise InputError(f"{bundle.name} takes {wanted} ({', '.join(names)}), this image has {volume.channels}")
    if volume.data.dtype.kind not in "fiub":
        raise InputError(f"the image's values are {volume.data.dtype}: convert them to real numbers first")
    if volume.units == "pixel" and any(step.get("step") == "refine" for step in bundle.preparation):
        raise InputError(
            f"{bundle.name} needs to know how thick the slices are, and the image carries no voxel size: set it, or "
            "give a file that has it"
        )
    return []


def _look_at_values(volume: Volume, bundle: Any, options: RunOptions) -> list[str]:
    warnings: list[str] = []
    names = volume.channel_names or tuple(channel.name for channel in bundle.channels)
    step = -(-volume.data[0].size // _MOST_READ)
    for channel, wanted, name in zip(volume.data, bundle.channels, names, strict=False):
        drawn = wanted.modality.upper() == "RTSTRUCT"  # empty where nobody drew the organ
        seen = channel[::step] if channel.shape[0] > step else channel
        finite = seen[np.isfinite(seen)] if seen.dtype.kind == "f" else seen
        if finite.size < seen.size and options.replace_nonfinite is None:
            raise InputError(
                f"'{name}' holds values that are NaN or infinite: repair the image, or choose a value to put in their "
                "place"
            )
        if step == 1 and not drawn and (finite.size == 0 or finite.min() == finite.max()):
            value = float(finite.flat[0]) if finite.size else 0.0
            raise InputError(f"'{name}' is {value:g} everywhere: there is nothing to see, check the file")
        if step == 1 and wanted.modality.upper() == "MASK":
            check_mask(seen, wanted.name)
        if finite.size:
            warnings += value_warnings(finite, wanted.name, wanted.modality, bundle)
    return warnings


def prepared_shape(shape: Sequence[int], affine: np.ndarray, bundle: Any, options: RunOptions) -> tuple[int, int, int]:
    """Voxels (z, y, x) that an image has for the network; at most, where a step crops to what is not empty.

    Parameters
    ----------
    shape : sequence of int
        (Z, Y, X) of the image.
    affine : ndarray, shape (4, 4)
        Of the image.
    bundle : Bundle
    options : RunOptions
        `spacing` and `axis` are looked at.
    """
    return _prepared(shape, affine, bundle, options)[0]


def _prepared(shape: Sequence[int], affine: np.ndarray, bundle: Any, options: RunOptions) -> tuple[Any, list[str]]:
    data = np.broadcast_to(np.float32(0), (len(bundle.channels), *shape))
    state = State(data, np.array(affine[:3, :3]))
    order, warnings = [0, 1, 2], []
    for step in bundle.preparation:
        step = dict(step)
        if step.get("step") == "refine" and options.spacing is not None:
            step["spacing"] = options.spacing
        before = state
        state = _next(state, step)
        if step.get("step") in ("orient", "transpose", "slice_axis_first"):
            order = [order[axis] for axis in _came_from(before, state)]
        warnings += [warning for warning in state.warnings if warning not in warnings]
    after = state.data.shape[1:]
    if options.axis in AXES:
        first = order.index(AXES.index(options.axis))
        after = (after[first], *(n for axis, n in enumerate(after) if axis != first))
    return tuple(int(n) for n in after), warnings


def _came_from(before: State, after: State) -> list[int]:
    """The axis of `before` that each axis of `after` is; both are views of one array, whose columns tell."""
    one, other = np.abs(before.affine), np.abs(after.affine)
    return [int(np.argmin(np.abs(one - other[:, [axis]]).sum(axis=0))) for axis in range(3)]


def _layout(volume: Volume, bundle: Any, options: RunOptions) -> list[str]:
    """Size in mm, and voxels after preparation, against what the bundle was made for."""
    shape, warnings = _prepared(volume.shape, volume.affine, bundle, options)
    tile = tuple(bundle.tile.size)
    if asked := isinstance(options.tile, tuple) and len(options.tile) == len(tile):
        tile = options.tile
    if len(tile) == 3:
        return [*warnings, *size_warnings(shape, trained_on(bundle, tile), asked=asked)]
    for axis in range(3) if options.axis == "all" else [0]:
        warnings += size_warnings([1, *(n for a, n in enumerate(shape) if a != axis)], (1, *tile), asked=asked)
    return warnings


def _next(state: State, step: Mapping[str, Any]) -> State:
    """The state after a step, its values left away: steps that crop to what is not empty change nothing here."""
    options = dict(step)
    name = options.pop("step", "")
    if name in _ONLY_GEOMETRY:
        return STEPS[name](state, **options)[0]
    before, sides = state.data.shape[1:], state.spacing
    warnings: tuple[str, ...] = ()
    axes = [0, 1, 2]
    if name in ("resample", "respace"):
        wanted = wanted_spacing(options["spacing"], sides, options.get("keep", ()))
        target = [t if t is not None else s for t, s in zip(wanted, sides, strict=True)]
        after = new_shape(before, sides, target)
    elif name == "resize":
        after = tuple(n or old for n, old in zip(options["shape"], before, strict=True))
    elif name == "centre":
        after = tuple(options["size"])
        warnings = coverage_warnings(before, after, sides, options.get("min_coverage", 0.0))
    elif name == "crop_to_body":
        after = tuple(rounded_up(n, options.get("multiple", 16)) for n in before)
    elif name == "refine":
        after, axes, warnings = finer_grid(before, sides, options.get("spacing"), options.get("max_factor", 8.0))
    else:
        return state
    data = np.broadcast_to(np.float32(0), (state.data.shape[0], *(after[axis] for axis in axes)))
    scale = np.array(before) / np.array(after) if name not in ("centre", "crop_to_body") else np.ones(3)
    return replace(state, data=data, affine=(state.affine * scale)[:, axes], warnings=warnings)
