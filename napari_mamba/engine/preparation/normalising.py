"""The step that shifts and scales a volume's channels, and what undoes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes

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


def normalise(state: State, schemes: Sequence[str | Mapping[str, Any]]) -> tuple[State, Undo]:
    """Shift and scale each channel by its scheme (one scheme counts for all); see `docs/bundles.md`."""
    if len(schemes) == 1:
        schemes = list(schemes) * len(state.data)
    if len(schemes) != len(state.data):
        raise BundleError(f"the preparation names {len(schemes)} normalisation schemes for {len(state.data)} channels")
    data = np.empty(state.data.shape, np.float32)
    scales, shifts, masks = [], [], []
    found = state.mask
    for c, scheme in enumerate(schemes):
        options = {"scheme": scheme} if isinstance(scheme, str) else dict(scheme)
        if options.get("use_mask") and found is None:
            found = binary_fill_holes((state.data != 0).any(axis=0))
        mask = found if options.get("use_mask") else state.data[c] != 0 if options.get("nonzero") else None
        known = state.data if options.get("joint") else state.data[c]
        data[c], scale, shift = _normalise_channel(state.data[c], options, mask, known)
        if options.get("use_mask") and state.mask is not None:
            data[c][~state.mask] = 0  # interpolation has blurred the image's edge into the empty part
        scales.append(scale)
        shifts.append(shift)
        masks.append(mask)
    return replace(state, data=data), UndoNormalise(tuple(scales), tuple(shifts), tuple(masks))


def _normalise_channel(
    image: np.ndarray, options: Mapping[str, Any], mask: np.ndarray | None, known: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """The channel, normalised by what is `known` inside the mask, and the scale and shift that undo it."""
    kind = options["scheme"]
    low, high = None, None
    if mask is not None and mask.any():
        known = known[..., mask]
    if kind == "none":
        return image, 1.0, 0.0
    if kind == "zscore":
        # In float64: squares of finite values overflow float32. A tiny scan's spread counts as any other's.
        shift, spread = float(known.mean(dtype=np.float64)), float(known.std(dtype=np.float64))
        scale = spread if spread > 1e-12 * abs(shift) and spread > 1e-30 else 1e-8
    elif kind == "ct":
        try:
            low, high, shift, std = (float(options[key]) for key in ("lower", "upper", "mean", "std"))
        except KeyError as error:
            raise BundleError(f"the preparation's scheme 'ct' lacks {error}") from error
        scale = max(std, 1e-8)
    elif kind == "percentile":
        low, high = _percentiles(known, options)
        shift, scale = low, max(high - low, 1e-8)
        low = low if options.get("clip", True) else None
    elif kind == "rescale_0_1":
        shift = float(known.min())
        scale = max(float(known.max() - np.float32(shift)), 1e-8)
    elif kind == "rgb_0_1":
        if image.min() < 0 or image.max() > 255:
            raise InputError("this network takes 8-bit images, with values from 0 to 255: convert the image")
        shift, scale = 0.0, 255.0
    else:
        raise BundleError(f"the preparation's normalisation scheme {kind!r} is not known")
    new = image if low is None else np.clip(image, np.float32(low), np.float32(high))
    new = (new - np.float32(shift)) / np.float32(scale)
    return (new if mask is None else np.where(mask, new, image)), scale, shift


MAX_PERCENTILE_VOXELS = 4_000_000
"""Voxels that percentiles are taken over: of a larger image every second, third, … one."""


def _percentiles(known: np.ndarray, options: Mapping[str, Any]) -> tuple[float, float]:
    """The values that become 0 and 1, by the shares "lower" and "upper" (0.5 and 99.5 percent).

    "lower" None keeps 0 where it is.
    """
    lower, upper = options.get("lower", 0.5), float(options.get("upper", 99.5))
    zero = lower is None  # what is 0 stays 0, as of a magnitude it should
    lower = 0.0 if zero else float(lower)
    if not 0 <= lower < upper <= 100:
        raise BundleError(f"the preparation's percentiles are 0 to 100, the lower first, not {lower:g} and {upper:g}")
    some = known.reshape(-1)[:: known.size // MAX_PERCENTILE_VOXELS + 1]
    low, high = np.percentile(some, (lower, upper))
    if not high > low:  # nearly everything is one value, a small object in an empty image
        low, high = some.min(), some.max()
    return (0.0 if zero else float(low)), float(high)
