"""MONAI's transforms as a bundle's preparation.

Read in docs.monai.io/en/stable/transforms.html. MONAI's arrays have the axes (x, y, z), ours (z, y, x): a transpose
comes first, and sizes and spacings keep MONAI's order after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from napari_mamba.bundles.importers.monai.config import target
from napari_mamba.errors import BundleError

Transform = Mapping[str, Any]
_NO_LIMIT = 1e30
_NOTHING_TO_DO = {
    "LoadImaged",
    "LoadImage",
    "EnsureChannelFirstd",
    "EnsureChannelFirst",
    "AddChanneld",
    "AsChannelFirstd",
    "EnsureTyped",
    "EnsureType",
    "ToTensord",
    "ToTensor",
    "CastToTyped",
    "CastToType",
    "SelectItemsd",
    "ToDeviced",
    "Identityd",
}


def preparation_of(transforms: Sequence[Transform], channels: int, dims: int, where: str) -> list[dict[str, Any]]:
    """The steps that do to a volume what these transforms do to an image of so many channels and dimensions.

    Raises
    ------
    BundleError
        If a transform has no counterpart here, or options that have none; the message names it.
    """
    transforms = [one for one in transforms if not one.get("_disabled_") and target(one) not in _NOTHING_TO_DO]
    axes = {"step": "transpose", "axes": [2, 1, 0] if dims == 3 else [0, 2, 1]}
    orienting = [one for one in transforms if target(one).startswith("Orientation")]
    steps: list[dict[str, Any]] = [{"step": "orient", "axcodes": str(one.get("axcodes"))} for one in orienting[:1]]
    steps.append(axes)
    for index, one in enumerate(transforms):
        name = target(one).removesuffix("d")
        if name == "Orientation":
            before = [target(other).removesuffix("d") for other in transforms[:index]]
            if "Spacing" in before or "Resize" in before or one is not orienting[0] or one.get("axcodes") is None:
                raise BundleError(f"{where}: turns the image by {target(one)} where it cannot be followed")
            continue
        if name not in _KNOWN:
            raise BundleError(
                f"{where}: prepares images with {target(one) or one!r}, which has no counterpart here: give the "
                "preparation yourself"
            )
        steps += _KNOWN[name](one, channels, dims, where)
    return steps


def _spacing(one: Transform, channels: int, dims: int, where: str) -> list[dict[str, Any]]:
    mode, pixdim = one.get("mode", "bilinear"), one.get("pixdim")
    mode = mode[0] if isinstance(mode, list) else mode
    pixdim = [pixdim] * dims if isinstance(pixdim, int | float) else pixdim
    if mode not in ("bilinear", 1) or one.get("padding_mode", "border") != "border" or one.get("align_corners"):
        raise BundleError(
            f"{where}: resamples by the mode {mode!r}, of which only 'bilinear' to the border is supported"
        )
    if not isinstance(pixdim, list) or len(pixdim) < dims:
        raise BundleError(f"{where}: resamples to {pixdim!r}, which are not {dims} sizes")
    sides = [side if side and side > 0 else None for side in pixdim[:dims]]
    return [{"step": "respace", "spacing": [*([None] * (3 - dims)), *sides]}]


def _resize(one: Transform, channels: int, dims: int, where: str) -> list[dict[str, Any]]:
    size, mode = one.get("spatial_size"), one.get("mode", "area")
    size = [size] * dims if isinstance(size, int) else size
    if one.get("size_mode", "all") != "all" or mode not in ("bilinear", "trilinear") or one.get("align_corners"):
        raise BundleError(f"{where}: resizes by the mode {mode!r}, of which only the linear ones are supported")
    if not isinstance(size, list) or len(size) != dims:
        raise BundleError(f"{where}: resizes to {size!r}, which are not {dims} numbers")
    shape = [*([None] * (3 - dims)), *(side if side > 0 else None for side in size)]
    return [{"step": "resize", "shape": shape, "antialias": bool(one.get("anti_aliasing", False))}]


def _normalise_intensity(one: Transform, channels: int, dims: int, where: str) -> list[dict[str, Any]]:
    given = {key: one[key] for key in ("subtrahend", "divisor") if one.get(key) is not None}
    nonzero, apart = bool(one.get("nonzero")), bool(one.get("channel_wise")) or channels == 1
    if given:
        pairs = [_each(one.get(key), channels) for key in ("subtrahend", "divisor")]
        if nonzero or None in pairs:
            raise BundleError(f"{where}: {target(one)} with {', '.join(given)} alone or within a mask is not supported")
        return [_normalise(*[_linear(mean, std) for mean, std in zip(*pairs, strict=True)])]  # type: ignore[arg-type]
    if nonzero and not apart:
        raise BundleError(f"{where}: {target(one)} over the nonzero voxels of all channels together is not supported")
    options = {**({"nonzero": True} if nonzero else {}), **({} if apart else {"joint": True})}
    return [_normalise({"scheme": "zscore", **options} if options else "zscore")]


def _scale_range(one: Transform, channels: int, dims: int, where: str) -> list[dict[str, Any]]:
    low, high, new_low, new_high = (one.get(key) for key in ("a_min", "a_max", "b_min", "b_max"))
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low == high:
        raise BundleError(f"{where}: {target(one)} names no range from a_min to a_max")
    new_low, new_high = 0.0 if new_low is None else new_low, 1.0 if new_high is None else new_high
    scale = (high - low) / (new_high - new_low)
    limits = (low, high) if one.get("clip") else (-_NO_LIMIT, _NO_LIMIT)
    return [_normalise(_linear(low - new_low * scale, scale, *limits))]


def _scale(one: Transform, channels: int, dims: int, where: str) -> list[dict[str, Any]]:
    if one.get("factor") is not None or one.get("minv", 0.0) is None or one.get("maxv", 1.0) is None:
        raise BundleError(f"{where}: {target(one)} by a factor is not supported")
    low, high = float(one.get("minv", 0.0)), float(one.get("maxv", 1.0))
    joint = channels > 1 and not one.get("channel_wise")
    steps = [_normalise({"scheme": "rescale_0_1", "joint": True} if joint else "rescale_0_1")]
    if (low, high) != (0.0, 1.0):
        steps.append(_normalise(_linear(-low / (high - low), 1 / (high - low))))
    return steps


def _normalise(*schemes: Any) -> dict[str, Any]:
    return {"step": "normalise", "schemes": list(schemes)}


def _linear(mean: float, std: float, low: float = -_NO_LIMIT, high: float = _NO_LIMIT) -> dict[str, Any]:
    return {"scheme": "ct", "lower": float(low), "upper": float(high), "mean": float(mean), "std": float(std)}


def _each(value: Any, channels: int) -> list[float] | None:
    values = value if isinstance(value, list) else [value] * channels
    return values if len(values) == channels and all(isinstance(one, int | float) for one in values) else None


_KNOWN: Mapping[str, Callable[[Transform, int, int, str], list[dict[str, Any]]]] = {
    "Spacing": _spacing,
    "Resize": _resize,
    "NormalizeIntensity": _normalise_intensity,
    "ScaleIntensityRange": _scale_range,
    "ScaleIntensity": _scale,
}
