"""The step that lays thick slices out on a finer grid, and what brings the restored image back into the file's axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.errors import BundleError, InputError

MAX_FACTOR = 2**30
"""Voxels of a grid beyond which a voxel size is taken for a slip: 4 GiB of float32."""

PROFILES = ("gaussian", "box", "sinc")
"""Slice profiles, see `engine.preparation.grids.slices.slice_weights`."""

MIN_UPSAMPLING = 1.25
"""Ratio of the two voxel sides below which there is nothing to restore."""


@dataclass(frozen=True)
class Slices:
    """The slices (C, Z, Y, X) that an image was refined from, and along each refined axis the maps to and fro.

    `maps` are (axis, map (n, count) from slices to voxels, map (count, n) from voxels to the slices through them).
    """

    given: np.ndarray
    maps: tuple[tuple[int, np.ndarray, np.ndarray], ...]

    def kept(self, image: np.ndarray) -> np.ndarray:
        """The image, with what its slices lack of those given laid out on its grid and added."""
        taken = image
        for axis, _, through in self.maps:
            taken = _along(taken, through, axis)
        lacking = self.given[: len(image)] - taken
        for axis, back, _ in self.maps:
            lacking = _along(lacking, back, axis)
        return np.asarray(image + lacking, np.float32)


def _along(data: np.ndarray, linear: np.ndarray, axis: int) -> np.ndarray:
    """Apply a map (m, n) along a spatial axis of (C, Z, Y, X)."""
    return np.moveaxis(np.tensordot(data, linear, axes=(axis + 1, 1)), -1, axis + 1)


@dataclass(frozen=True)
class UndoUpsample(Undo):
    """Of `refine`: axes back in the input's order, on the finer grid; labels and probabilities go back to the input's.

    `order` is the input's axis at each axis of the prepared image, `shape` the input's grid. `index`, (4, 4), takes a
    voxel's index on the finer grid to its place on the input's, both in the input's order of axes. `slices` are what
    `data_consistency` needs.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    index: np.ndarray
    slices: Slices | None = None
    exact = False

    def data_consistency(self, image: np.ndarray) -> np.ndarray:
        """An image (C, Z, Y, X) that `image` left, changed as little as makes its slices those of the input."""
        return image if self.slices is None else self.slices.kept(image)

    def _turned(self, values: np.ndarray) -> np.ndarray:
        return values.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.order)))

    def image(self, image: np.ndarray) -> np.ndarray:
        return self._turned(image)

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        return self._coarse(values, 1)

    def nearest(self, labels: np.ndarray) -> np.ndarray:
        return self._coarse(labels, 0)

    def _coarse(self, values: np.ndarray, order: int) -> np.ndarray:
        from scipy import ndimage

        back = np.linalg.inv(self.index)
        turned = self._turned(values)
        return np.stack(
            [
                ndimage.affine_transform(
                    one, np.diag(back)[:3], back[:3, 3], output_shape=self.shape, order=order, mode="nearest"
                )
                for one in turned
            ]
        )

    def grid(self, affine: np.ndarray) -> np.ndarray:
        """The finer grid's affine, from the input's."""
        return affine @ self.index


def refine(
    state: State,
    spacing: Sequence[float | None] | float | None = None,
    order: int = 3,
    max_factor: float = 8.0,
    profile: str = "point",
    data_consistency: bool | str = False,
) -> tuple[State, Undo]:
    """Interpolate onto a finer grid over the same box, the axis that gains most first; restored images stay on it.

    Parameters
    ----------
    state : State
        With voxel sides in millimetres.
    spacing : float, or three along (z, y, x), optional
        Voxel sides of the new grid in mm; None is the shortest side of the image for all axes, and within three keeps
        that axis as it is. The grid is centred on the image's box. An axis that becomes coarser is averaged first.
    order : int
        Of the spline, 0 to 5; ends repeat.
    max_factor : float
        Beyond this ratio of the thickest slice to its new side a warning is given.
    profile : {"point", "gaussian"}
        What a value is of: "point", the voxel's centre, and a spline goes through it; "gaussian", a slice as thick as
        the voxel is long, and axes that gain at least 1.25 times get the best linear estimate (see `engine.slices`).
    data_consistency : bool or {"gaussian", "box", "sinc"}
        The restored image, cut into slices of `profile` again, or of the one that is named, is to give the input: what
        it lacks of that is added. Only where no axis is interpolated otherwise.

    Raises
    ------
    InputError
        If a side is not positive, or the grid has more than 2³⁰ voxels.
    BundleError
        If the spline's order or the profile is unknown.
    """
    if order not in range(6):
        raise BundleError(f"the preparation refines by splines of the order 0 to 5, not {order!r}")
    if profile not in ("point", "gaussian"):
        raise BundleError(f"the preparation refines values of the profile 'point' or 'gaussian', not {profile!r}")
    if not isinstance(data_consistency, bool) and data_consistency not in PROFILES:
        raise BundleError(f"slices have one of the profiles {', '.join(PROFILES)}, not {data_consistency!r}")
    before = np.asarray(state.spacing)
    target = _target(before, spacing)
    sizes = state.data.shape[1:]
    same = np.isclose(target, before, rtol=1e-4)
    shape = _shape(sizes, before, target)
    if np.prod(shape, dtype=float) > MAX_FACTOR:
        raise InputError(f"at {_mm(target)} mm this image would have {shape} voxels: ask for larger ones, or crop it")
    step = np.where(same, 1.0, target / before)
    start = np.array([(n - (m - 1) * s - 1) / 2 for n, m, s in zip(sizes, shape, step, strict=True)])
    data, maps, others = state.data, [], 0
    for axis in np.argsort(-step):  # what becomes coarser first: less to compute
        if not same[axis]:
            place = (sizes[axis], shape[axis], float(step[axis]), float(start[axis]))
            if profile == "gaussian" and step[axis] * MIN_UPSAMPLING <= 1:
                linear = slice_inverse_matrix(*place)
                linear, back, through = _told(place, linear, data_consistency)
                maps.append((int(axis), back, through))
            else:
                linear, others = spline_matrix(*place, order), others + 1
            data = _along(data, linear, axis)
    slices = Slices(state.data, tuple(maps)) if data_consistency and maps and not others else None
    index = np.diag([*step, 1.0])
    index[:3, 3] = start
    first = int(np.argmin(step))
    axes = (first, *(axis for axis in range(3) if axis != first))
    turned = np.ascontiguousarray(data.transpose(0, *(axis + 1 for axis in axes)), np.float32)
    warnings = (*state.warnings, *_factor_warnings(1 / step[first], max_factor))
    if isinstance(data_consistency, str) and slices is None:
        warnings += ("The slices' profile was not used: it is where nothing but their axis becomes finer.",)
    affine = (state.affine * step)[:, axes]
    new = replace(state, data=turned, affine=affine, mask=None, warnings=warnings, upsampling_factor=1 / step[first])
    return new, UndoUpsample(axes, tuple(sizes), index, slices)


def finer_grid(
    shape: Sequence[int], before: Sequence[float], spacing: Any = None, max_factor: float = 8.0
) -> tuple[tuple[int, ...], list[int], tuple[str, ...]]:
    """What `refine` makes of a grid: the voxels along its axes, the order these are then put in, and warnings."""
    sides = np.asarray(before)
    target = _target(sides, spacing)
    step = np.where(np.isclose(target, sides, rtol=1e-4), 1.0, target / sides)
    first = int(np.argmin(step))
    order = [first, *(axis for axis in range(3) if axis != first)]
    return _shape(shape, sides, target), order, tuple(_factor_warnings(1 / step[first], max_factor))


def _shape(sizes: Sequence[int], before: np.ndarray, target: np.ndarray) -> tuple[int, ...]:
    same = np.isclose(target, before, rtol=1e-4)
    return tuple(
        n if s else max(1, round(float(n * b / t))) for n, b, t, s in zip(sizes, before, target, same, strict=True)
    )


def _target(before: np.ndarray, spacing: Sequence[float | None] | float | None) -> np.ndarray:
    asked = list(spacing) if isinstance(spacing, Sequence) else [spacing] * 3
    if len(asked) != 3 or any(side is not None and not 0 < side < np.inf for side in asked):
        raise InputError(f"a voxel size is one positive number of mm, or three (z, y, x), not {spacing}")
    kept = before if isinstance(spacing, Sequence) else np.full(3, before.min())
    return np.array([own if side is None else float(side) for side, own in zip(asked, kept, strict=True)])


def _factor_warnings(factor: float, largest: float) -> list[str]:
    if factor < MIN_UPSAMPLING:
        return ["The slices are hardly thicker than the voxels asked for: there is little to restore."]
    if factor > largest:
        return [
            f"The slices are {factor:.1f} times as thick as the voxels asked for, the network was trained up to "
            f"{largest:g} times: what lies between them is a guess; ask for larger voxels."
        ]
    return []


def spline_matrix(count: int, n: int, step: float, start: float, order: int) -> np.ndarray:
    """The map (n, count) from values to those at the places `start + step * i` (i < n), by a spline."""
    from scipy import ndimage

    matrix = np.empty((n, count), np.float32)
    unit = np.zeros(count)
    for column in range(len(unit)):
        unit[column] = 1.0
        # A coarser grid takes means over its voxels: a Gaussian as wide at half its maximum as the voxel is long.
        smooth = ndimage.gaussian_filter1d(unit, step / 2.355, mode="nearest") if step > 1 else unit
        matrix[:, column] = ndimage.affine_transform(
            smooth, [step], [start], output_shape=(n,), order=order, mode="nearest"
        )
        unit[column] = 0.0
    return matrix


def slice_inverse_matrix(count: int, n: int, step: float, start: float) -> np.ndarray:
    """The map (n, count) from slices to values at the places `start + step * i` (i < n), `step` below 1."""
    import torch

    from napari_mamba.engine.preparation.grids.slices import interpolator

    centres = (torch.arange(count, dtype=torch.float64) - start) / step
    width = torch.full((1,), 1 / step, dtype=torch.float64)
    return interpolator(n, centres[None], width)[0].float().numpy()


def _told(
    place: tuple[int, int, float, float], linear: np.ndarray, kept: bool | str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The map by which slices are refined, and those from slices to voxels and back by which an image keeps them.

    Of slices of a sinc, Gaussian ones are made first: what they would be of the best estimate of the voxels. Networks
    have seen those most. In MR of heads that gains 0.1 dB; of a box's slices it gains nothing.
    """
    if not isinstance(kept, str):
        return linear, linear, slice_sampling_matrix(*place)
    import torch

    from napari_mamba.engine.preparation.grids.slices import estimate, least_change, slice_weights

    count, n, step, start = place
    centres = (torch.arange(count, dtype=torch.float64) - start) / step
    weights = slice_weights(n, centres, 1 / step, kept)
    if kept == "sinc":
        as_gaussian = slice_weights(n, centres, 1 / step, "gaussian") @ estimate(weights)
        linear = linear @ as_gaussian.float().numpy()
    return linear, least_change(weights).float().numpy(), weights.float().numpy()


def slice_sampling_matrix(count: int, n: int, step: float, start: float) -> np.ndarray:
    """The map (count, n) from values at the places `start + step * i` to slices, which `slice_inverse_matrix` takes."""
    import torch

    from napari_mamba.engine.preparation.grids.slices import gaussian_profile

    centres = (torch.arange(count, dtype=torch.float64)[:, None] - start) / step
    distance = torch.arange(n, dtype=torch.float64) - centres
    return gaussian_profile(distance, torch.tensor(1 / step, dtype=torch.float64)).float().numpy()


@dataclass(frozen=True)
class UndoAppendChannel(Undo):
    """Undoes `append_upsampling_channel`: an image keeps its first `channels`."""

    channels: int

    def image(self, image: np.ndarray) -> np.ndarray:
        return image[: self.channels]


def upsampling_channel_value(times: float) -> float:
    """The value of `append_upsampling_channel`'s channel: half the base-2 logarithm, 0.5 to 1.5 for 2 to 8 times."""
    return 0.5 * float(np.log2(max(times, 1.0)))


def append_upsampling_channel(state: State) -> tuple[State, Undo]:
    """Add a channel that tells the network how many times finer `refine` made the image.

    `upsampling_channel_value` says by which number.
    """
    told = np.full((1, *state.data.shape[1:]), upsampling_channel_value(state.upsampling_factor), np.float32)
    return replace(state, data=np.concatenate([state.data, told])), UndoAppendChannel(len(state.data))


def _mm(sizes: np.ndarray) -> str:
    return " x ".join(f"{s:.3g}" for s in sizes)
