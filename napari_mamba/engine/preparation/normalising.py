"""The step that shifts and scales a volume's channels, and what undoes it."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.errors import BundleError, InputError


@dataclass(frozen=True)
class UndoNormalise(Undo):
    """Of `normalise`: channel c becomes `image * scale[c] + shift[c]`, inside its mask where it has one."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]
    masks: tuple[np.ndarray | None, ...]

    def image(self, image: np.ndarray) -> np.ndarray:
        if len(image) != len(self.scale):
            raise BundleError(f"the network made {len(image)} channels out of {len(self.scale)}: it restores no image")
        whole = np.empty(image.shape, np.float32)
        for c, (scale, shift, mask) in enumerate(zip(self.scale, self.shift, self.masks, strict=True)):
            whole[c] = image[c] * np.float32(scale) + np.float32(shift)
            if mask is not None:
                whole[c][~mask] = image[c][~mask]
        return whole


DARK = (
    "The image's values go from 0 to 1 and are taken to be of 8 bits: the network sees it as nearly black. Give it "
    "with values from 0 to 255."
)


def normalise(state: State, schemes: Sequence[str | Mapping[str, Any]]) -> tuple[State, Undo]:
    """Shift and scale each channel by its scheme (one scheme counts for all); see `docs/bundles.md`."""
    data = np.empty(state.data.shape, np.float32)
    scales, shifts, masks = [], [], []
    found = state.mask
    for c, options in enumerate(schemes_of(schemes, len(state.data))):
        if options.get("use_mask") and found is None:
            from scipy.ndimage import binary_fill_holes

            found = binary_fill_holes((state.data != 0).any(axis=0))
        mask = found if options.get("use_mask") else state.data[c] != 0 if options.get("nonzero") else None
        known = state.data if options.get("joint") else state.data[c]
        if mask is not None and mask.any():
            known = known[..., mask]
        scaling = scaling_of(options, Values(known))
        scaling.applied(state.data[c], mask, out=data[c])
        if options.get("use_mask") and state.mask is not None:
            data[c][~state.mask] = 0  # interpolation has blurred the image's edge into the empty part
        scales.append(scaling.scale)
        shifts.append(scaling.shift)
        masks.append(mask)
    warnings = state.warnings
    if any(one["scheme"] == "rgb_0_1" for one in schemes_of(schemes, len(data))) and state.data.max() <= 1:
        warnings += (DARK,)
    return replace(state, data=data, warnings=warnings), UndoNormalise(tuple(scales), tuple(shifts), tuple(masks))


def schemes_of(schemes: Sequence[str | Mapping[str, Any]], channels: int) -> list[dict[str, Any]]:
    """The scheme of each channel, with its options."""
    if len(schemes) == 1:
        schemes = list(schemes) * channels
    if len(schemes) != channels:
        raise BundleError(f"the preparation names {len(schemes)} normalisation schemes for {channels} channels")
    return [{"scheme": one} if isinstance(one, str) else dict(one) for one in schemes]


@dataclass(frozen=True)
class Scaling:
    """How a channel is shifted and scaled: (clip(image, low, high) - shift) / scale, without clipping where None."""

    scale: float = 1.0
    shift: float = 0.0
    low: float | None = None
    high: float | None = None
    unchanged: bool = False

    def applied(self, image: np.ndarray, mask: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """A channel's values after it, float32, inside the mask if there is one; written into `out` where it is given.

        `image` is float32; it stays as it is, and may be what is returned.
        """
        if self.unchanged:
            if out is not None:
                out[...] = image
            return image
        new = np.empty(image.shape, np.float32) if out is None else out
        threads = min(_MOST_THREADS, os.cpu_count() or 1, new.size // _AT_ONCE, len(new) if new.ndim else 1)
        if threads < 2:
            self._apply(image, mask, new)
            return new
        ends = np.linspace(0, len(new), threads + 1).astype(int)
        pieces = [slice(start, end) for start, end in itertools.pairwise(ends)]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda i: self._apply(image[i], None if mask is None else mask[i], new[i]), pieces))
        return new

    def _apply(self, image: np.ndarray, mask: np.ndarray | None, new: np.ndarray) -> None:
        if self.low is None:
            np.subtract(image, np.float32(self.shift), out=new)
        else:
            np.clip(image, np.float32(self.low), np.float32(self.high), out=new)
            np.subtract(new, np.float32(self.shift), out=new)
        np.divide(new, np.float32(self.scale), out=new)
        if mask is not None:
            np.copyto(new, image, where=~mask)


class Known(Protocol):
    """What a scheme may ask of a channel's values."""

    def mean(self) -> float: ...
    def std(self) -> float: ...
    def min(self) -> float: ...
    def max(self) -> float: ...
    def sample(self) -> np.ndarray:
        """Every so many of them, `MAX_PERCENTILE_VOXELS` at most."""
        ...


@dataclass(frozen=True)
class Values:
    """`Known` of values in memory."""

    values: np.ndarray

    def mean(self) -> float:
        return float(self.values.mean(dtype=np.float64))

    def std(self) -> float:
        return float(self.values.std(dtype=np.float64))

    def min(self) -> float:
        return float(self.values.min())

    def max(self) -> float:
        return float(self.values.max())

    def sample(self) -> np.ndarray:
        return self.values.reshape(-1)[:: sample_stride(self.values.size)]


def scaling_of(options: Mapping[str, Any], known: Known) -> Scaling:
    """What a scheme does to a channel of which these values are known."""
    kind = options["scheme"]
    if kind == "none":
        return Scaling(unchanged=True)
    if kind == "zscore":
        # In float64: squares of finite values overflow float32. A tiny scan's spread counts as any other's.
        shift, spread = known.mean(), known.std()
        return Scaling(spread if spread > 1e-12 * abs(shift) and spread > 1e-30 else 1e-8, shift)
    if kind == "ct":
        try:
            low, high, shift, std = (float(options[key]) for key in ("lower", "upper", "mean", "std"))
        except KeyError as error:
            raise BundleError(f"the preparation's scheme 'ct' lacks {error}") from error
        return Scaling(max(std, 1e-8), shift, low, high)
    if kind == "percentile":
        low, high = _percentiles(known, options)
        clipped = (low, high) if options.get("clip", True) else (None, None)
        return Scaling(max(high - low, 1e-8), low, *clipped)
    if kind == "rescale_0_1":
        shift = known.min()
        return Scaling(max(float(np.float32(known.max()) - np.float32(shift)), 1e-8), shift)
    if kind == "rgb_0_1":
        if known.min() < 0 or known.max() > 255:
            raise InputError("this network takes 8-bit images, with values from 0 to 255: convert the image")
        return Scaling(255.0, 0.0)
    raise BundleError(f"the preparation's normalisation scheme {kind!r} is not known")


_AT_ONCE, _MOST_THREADS, _SOME = 2**20, 4, 2**15
MAX_PERCENTILE_VOXELS = 4_000_000
"""Voxels that percentiles are taken over: of a larger image every second, third, … one."""


def sample_stride(size: int) -> int:
    """Of how many values one is looked at."""
    return size // MAX_PERCENTILE_VOXELS + 1


def _percentiles(known: Known, options: Mapping[str, Any]) -> tuple[float, float]:
    """The values that become 0 and 1, by the shares "lower" and "upper" (0.5 and 99.5 percent).

    "lower" None keeps 0 where it is.
    """
    lower, upper = options.get("lower", 0.5), float(options.get("upper", 99.5))
    zero = lower is None  # what is 0 stays 0, as of a magnitude it should
    lower = 0.0 if zero else float(lower)
    if not 0 <= lower < upper <= 100:
        raise BundleError(f"the preparation's percentiles are 0 to 100, the lower first, not {lower:g} and {upper:g}")
    some = known.sample()
    low, high = percentiles(some, (lower, upper))
    if not high > low:  # nearly everything is one value, a small object in an empty image
        low, high = some.min(), some.max()
    return (0.0 if zero else float(low)), float(high)


def percentiles(values: np.ndarray, percents: Sequence[float]) -> np.ndarray:
    """As `np.percentile` of values (N,), to the bit; several times faster where there are millions.

    Each lies between two neighbours of the sorted values. Every so many values, sorted, tell between which values
    those are; only what lies there is looked at.
    """
    values = np.ascontiguousarray(values)
    n = len(values)
    if n < 2 * _SOME or values.dtype != np.float32 or np.isnan(values.min()):
        return np.percentile(values, percents)
    sample = np.sort(values[:: n // _SOME])
    found = []
    for share in np.asarray(percents, np.float64) / 100:
        place = (n - 1) * share
        first = math.floor(place)
        pair = _neighbours(values, sample, first, min(first + 1, n - 1))
        if pair is None:
            return np.percentile(values, percents)
        found.append(np.quantile(pair, np.array([place - first]))[0])
    return np.array(found)


def _neighbours(values: np.ndarray, sample: np.ndarray, first: int, second: int) -> np.ndarray | None:
    """The values of two ranks, by a sorted sample; None where it tells too little."""
    at, off = len(sample) * first / len(values), 4 * len(sample) ** 0.5 + 2  # eight standard deviations of its rank
    low, high = int(at - off), int(at + off) + 2
    least = sample[low] if low >= 0 else -np.inf
    most = sample[high] if high < len(sample) else np.inf
    below = int(np.count_nonzero(values < least)) if low >= 0 else 0
    if least == most:
        there = np.count_nonzero(values == least)
        return np.array([least, least]) if below <= first and second < below + there else None
    some = values[(values >= least) & (values <= most)]
    if not below <= first <= second < below + len(some):
        return None
    ranks = np.array([first - below, second - below])
    return np.partition(some, ranks)[ranks]
