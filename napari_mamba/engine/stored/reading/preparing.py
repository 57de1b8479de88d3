"""A bundle's preparation of an image that stays on disk: views where steps move voxels, passes where they look at all.

The steps are those of `engine.preparation`; those that need the image whole in memory are refused here by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_mamba.engine.preparation.cropping import UndoCrop
from napari_mamba.engine.preparation.grids.spacing import plan_resampling
from napari_mamba.engine.preparation.normalising import Scaling, scaling_of, schemes_of
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.engine.preparation.steps import STEPS
from napari_mamba.engine.stored.reading.lazy import LazyImage, lazy
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.passes import Extent, Watch, blocks
from napari_mamba.engine.stored.reading.resampled import ResampledImage, Resizing, ranges_of
from napari_mamba.engine.stored.reading.statistics import KnownOnDisk, Passes
from napari_mamba.engine.tiling.tiles import Box
from napari_mamba.volume import Volume

_VIEWS = ("orient", "transpose", "slice_axis_first", "field_of_view")
"""Steps that take a `LazyImage` as they take an array."""


@dataclass(frozen=True)
class UndoScaling(Undo):
    """Of `normalise` on disk: channel c becomes `image * scale + shift`; where `nonzero`, only if the input was not 0.

    Attributes
    ----------
    scalings : tuple of Scaling
    nonzero : tuple of bool
    before : LazyImage
        The image before the step.
    """

    scalings: tuple[Scaling, ...]
    nonzero: tuple[bool, ...]
    before: LazyImage

    def image_at(self, image: np.ndarray, box: Box) -> np.ndarray:
        """A block (C, z, y, x) of an image, which lies at `box`, in the scale before the step."""
        whole = np.empty(image.shape, np.float32)
        given = np.asarray(self.before[(slice(None), *box)]) if any(self.nonzero) else image
        for c, (scaling, nonzero) in enumerate(zip(self.scalings, self.nonzero, strict=True)):
            np.multiply(image[c], np.float32(scaling.scale), out=whole[c])
            whole[c] += np.float32(scaling.shift)
            if nonzero:
                np.copyto(whole[c], image[c], where=given[c] == 0)
        return whole


@dataclass(frozen=True)
class _Scale:
    """`normalise`, of a block."""

    scalings: tuple[Scaling, ...]
    nonzero: tuple[bool, ...]

    def __call__(self, block: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                scaling.applied(channel, channel != 0 if nonzero else None)
                for channel, scaling, nonzero in zip(block, self.scalings, self.nonzero, strict=True)
            ]
        )


@dataclass(frozen=True)
class _Repeat:
    """One channel as red, green and blue."""

    channels: int

    def __call__(self, block: np.ndarray) -> np.ndarray:
        return np.repeat(block, self.channels, axis=0)


def _float32(block: np.ndarray) -> np.ndarray:
    return block.astype(np.float32)


def prepare_on_disk(
    volume: Volume,
    steps: Sequence[Mapping[str, Any]],
    channels: int,
    watch: Watch = lambda done, total: None,
    found: dict[str, Any] | None = None,
) -> Prepared:
    """Carry out a bundle's preparation without reading the image into memory.

    Parameters
    ----------
    volume : Volume
        Checked.
    steps : sequence of mapping
        As of `prepare`.
    channels : int
        That the bundle takes: a single one is repeated.
    watch : callable
        See `passes.blocks`.
    found : dict, optional
        What passes have found, step by step: is filled, and spares the passes where it is given again. JSON can hold
        it.

    Returns
    -------
    Prepared
        Its `data` a `LazyImage`, float32.

    Raises
    ------
    NeedsMemory
        If a step cannot be done so.
    """
    check_steps(steps)
    data = lazy(volume.data).map(_float32, dtype=np.float32)
    if data.channels < channels:
        data = data.map(_Repeat(channels), channels)
    state = State(data, np.array(volume.affine[:3, :3]))  # type: ignore[arg-type]
    undos: list[Undo] = []
    warnings: list[str] = []
    found = {} if found is None else found
    for number, step in enumerate(steps):
        options = dict(step)
        name = options.pop("step")
        if name == "crop_nonzero":
            state, undo = _cropped(state, watch, found, f"{number} {name}")
        elif name == "resample":
            state, undo = _resampled(state, options, watch, found, f"{number} {name}")
        elif name == "normalise":
            state, undo = _normalised(state, options["schemes"], watch, found, f"{number} {name}")
        else:
            state, undo = STEPS[name](state, **options)
        undos.append(undo)
        warnings += [warning for warning in state.warnings if warning not in warnings]
    return Prepared(state.data, tuple(undos), state.spacing, tuple(warnings))


def check_steps(steps: Sequence[Mapping[str, Any]]) -> None:
    """Raise `NeedsMemory` if a step of a preparation needs the image whole."""
    names = [step.get("step") for step in steps]
    for number, step in enumerate(steps):
        name = names[number]
        if name == "resample":
            once = names.count(name) == 1 and "crop_nonzero" not in names[number:]
            if once and step.get("order_probabilities", 1) < 2:
                continue
        known = name in _VIEWS or name == "normalise" or (name == "crop_nonzero" and not step.get("keep_mask"))
        if name == "normalise":
            schemes = [one for one in step.get("schemes", ()) if isinstance(one, Mapping)]
            known = not any(one.get("use_mask") for one in schemes)
        if not known:
            raise NeedsMemory(
                f"the preparation step {str(name)[:40]!r} needs the whole image in memory: give a coarser --level or a "
                "--region of it that fits"
            )


def _cropped(state: State, watch: Watch, found: dict[str, Any], key: str) -> tuple[State, Undo]:
    shape = tuple(state.data.shape[1:])
    if key not in found:
        extent = Extent()
        for box, block in blocks(state.data, watch):  # type: ignore[arg-type]
            extent.add(box, block)
        found[key] = [[one.start, one.stop] for one in extent.box(shape)]
    z, y, x = (slice(*one) for one in found[key])
    return replace(state, data=state.data[:, z, y, x]), UndoCrop(shape, (z, y, x))


def _resampled(
    state: State, options: Mapping[str, Any], watch: Watch, found: dict[str, Any], key: str
) -> tuple[State, Undo]:
    plan = plan_resampling(state, **options)
    if plan is None:
        return state, Undo()
    image: LazyImage = state.data  # type: ignore[assignment]
    resizing = Resizing.of(image.shape[1:], plan.shape, plan.apart, plan.undo.order, plan.undo.order_z)
    if plan.undo.order > 1 and key not in found:
        found[key] = ranges_of(image, plan.apart, watch)
    data = lazy(ResampledImage(image, resizing, found.get(key)))
    return State(data, plan.affine), plan.undo  # type: ignore[arg-type]


def _normalised(
    state: State, schemes: Sequence[Any], watch: Watch, found: dict[str, Any], key: str
) -> tuple[State, Undo]:
    image: LazyImage = state.data  # type: ignore[assignment]
    every = schemes_of(schemes, image.channels)
    if key not in found:
        known = Passes(image, watch)
        scalings = [scaling_of(one, KnownOnDisk(known, c, one)) for c, one in enumerate(every)]
        found[key] = [vars(one) for one in scalings]
    scalings = [Scaling(**one) for one in found[key]]
    nonzero = tuple(bool(one.get("nonzero")) for one in every)
    data = image.map(_Scale(tuple(scalings), nonzero))
    return replace(state, data=data), UndoScaling(tuple(scalings), nonzero, image)  # type: ignore[arg-type]
