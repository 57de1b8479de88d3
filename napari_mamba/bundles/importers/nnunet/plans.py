"""`plans.json` and `dataset.json` of nnU-Net v2, read into a bundle's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mamba.bundles.description.fields import Fields
from napari_mamba.bundles.doors import json_of
from napari_mamba.bundles.spec import Channel, LabelClass
from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted

_SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_0_1",
    "RGBTo01Normalization": "rgb_0_1",
}
_MR_WORDS = ("mr", "mri", "t1", "t1w", "t1c", "t1n", "t1gd", "t1ce", "t2", "t2w", "t2f", "flair", "adc", "dwi")


@dataclass(frozen=True)
class Configuration:
    """One configuration of a plan. Axes are nnU-Net's, after its transpose; a 2D one has two of each."""

    name: str
    dataset_name: str
    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    transpose: tuple[int, ...]
    schemes: tuple[str, ...]
    use_mask: tuple[bool, ...]
    intensities: Mapping[str, Any]
    resampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network_arguments(self) -> dict[str, Any]:
        """What the plan knows of the network, under the names that networks have for it."""
        size, strides = list(self.patch_size), [list(step) for step in self.strides]
        return {"strides": strides, "input_size": size, "img_size": size, "spatial_dims": len(size)}


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `BundleError` with the file's name."""
    return Fields(json_of(path), str(path)).values


def resolve(plans: Mapping[str, Any], name: str, where: Path) -> Configuration:
    """The configuration `name`, with what it inherits.

    Raises
    ------
    BundleError
        If it is not there, is the second stage of a cascade, or its file has been changed by hand beyond reading.
    """
    top = Fields(plans, str(where))
    merged = _inherited(top.mapping("configurations"), name, where)
    if merged.get("previous_stage"):
        raise BundleError(
            f"{where}: {name} is the second stage of a cascade, which is not supported: give another configuration"
        )
    one = Fields(merged, f"{where}, {name}")
    size = one.integers("patch_size")
    strides = merged.get("pool_op_kernel_sizes")
    if strides is None:  # plans since nnU-Net 2.4 keep what is the network's apart
        strides = one.fields("architecture").mapping("arch_kwargs").get("strides")
    if not isinstance(strides, list) or not all(isinstance(s, list) and len(s) == len(size) for s in strides):
        raise BundleError(f"{where}: the strides of {name} are not lists of {len(size)} numbers")
    if len(strides) > 16 or any(type(step) is not int or not 1 <= step <= 64 for steps in strides for step in steps):
        raise BundleError(f"{where}: the strides of {name} are not whole numbers from 1 to 64")
    if len(size) not in (2, 3) or min(size) < 1 or max(size) > 4096:
        raise BundleError(f"{where}: the patch size of {name} is {quoted(list(size))}, which no network takes")
    transpose = top.integers("transpose_forward", (0, 1, 2))
    intensities = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    return Configuration(
        name=name,
        dataset_name=top.text("dataset_name", "nnU-Net"),
        spacing=one.numbers("spacing"),
        patch_size=size,
        strides=tuple(tuple(step) for step in strides),
        transpose=transpose,
        schemes=one.texts("normalization_schemes"),
        use_mask=tuple(bool(flag) for flag in merged.get("use_mask_for_norm", ())),
        intensities=intensities,
        resampling={key: value for key, value in merged.items() if key.startswith("resampling_fn")},
    )


def _inherited(configurations: Mapping[str, Any], name: str, where: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(configurations.get(name), dict):
        known = ", ".join(configurations)
        raise BundleError(f"{where}: has no configuration {name!r}; there are: {known}")
    own = configurations[name]
    parent = own.get("inherits_from")
    if parent is None:
        return dict(own)
    if parent in (*seen, name):
        raise BundleError(f"{where}: the configuration {name!r} inherits from itself")
    return {**_inherited(configurations, parent, where, (*seen, name)), **own}


def preparation_of(settings: Configuration, channels: int, where: Path) -> tuple[dict[str, Any], ...]:
    """nnU-Net's preprocessing as a bundle's steps; its arrays are (z, y, x) as the file has them."""
    flat = len(settings.patch_size) == 2
    forward = settings.transpose
    if sorted(forward) != [0, 1, 2] or len(settings.spacing) != len(settings.patch_size):
        raise BundleError(f"{where}: transpose_forward, spacing and patch_size do not fit together")
    backward = [forward.index(axis) for axis in range(3)]
    resample = {
        "step": "resample",
        "spacing": [*([None] if flat else []), *settings.spacing],
        **_resampling(settings.resampling, where),
        "file_axes": backward,
    }
    normalise = {"step": "normalise", "schemes": _schemes(settings, channels, where)}
    steps = [{"step": "transpose", "axes": list(forward)}] if forward != (0, 1, 2) else []
    return (*steps, {"step": "crop_nonzero"}, normalise, resample)


def _resampling(plan: Mapping[str, Any], where: Path) -> dict[str, Any]:
    kinds = [plan.get(f"resampling_fn_{kind}", "resample_data_or_seg_to_shape") for kind in ("data", "probabilities")]
    data, outputs = (plan.get(f"resampling_fn_{kind}_kwargs") or {} for kind in ("data", "probabilities"))
    if kinds == ["fast_resample_data_or_seg_to_shape"] * 2 and data.get("order", 3) and outputs.get("order", 3):
        return {"order": 1, "order_probabilities": 1, "anisotropy": "none"}
    if kinds != ["resample_data_or_seg_to_shape"] * 2:
        raise BundleError(f"{where}: resamples with {kinds[0]!r}, which is not known here")
    if any(data.get(key) != outputs.get(key) for key in ("order_z", "force_separate_z")):
        raise BundleError(f"{where}: resamples images and outputs by different rules, which is not supported")
    rule = {None: "nnunet", True: "separate", False: "none"}[data.get("force_separate_z", False if data else None)]
    return {
        "order": data.get("order", 3),
        "order_z": data.get("order_z", 0),
        "order_probabilities": outputs.get("order", 1),
        "anisotropy": rule,
    }


def _schemes(settings: Configuration, channels: int, where: Path) -> list[Any]:
    if len(settings.schemes) != channels:
        raise BundleError(f"{where}: normalises {len(settings.schemes)} channels, but dataset.json names {channels}")
    schemes: list[Any] = []
    for c, name in enumerate(settings.schemes):
        kind = _SCHEMES.get(name)
        if kind is None:
            raise BundleError(f"{where}: the normalisation {name!r} is not known here")
        masked = c < len(settings.use_mask) and settings.use_mask[c]
        if kind == "ct":
            known = Fields(settings.intensities.get(str(c), {}), f"{where}, intensities of channel {c}")
            names = {"lower": "percentile_00_5", "upper": "percentile_99_5", "mean": "mean", "std": "std"}
            schemes.append({"scheme": "ct", **{ours: known.number(theirs) for ours, theirs in names.items()}})
        else:
            schemes.append({"scheme": "zscore", "use_mask": True} if kind == "zscore" and masked else kind)
    return schemes


def channels_of(dataset: Mapping[str, Any], where: Path) -> tuple[Channel, ...]:
    """Input channels in nnU-Net's order, `_0000` first."""
    names = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(names, dict) or sorted(names) != sorted(str(i) for i in range(len(names))) or not names:
        raise BundleError(f"{where}: names no input channels (channel_names: {{'0': …}})")
    return tuple(Channel(str(names[str(i)]), modality_of(str(names[str(i)]))) for i in range(len(names)))


def modality_of(name: str) -> str:
    """The modality that a channel's name speaks of, as DICOM abbreviates it, or nothing."""
    words = name.lower().replace("-", " ").replace("_", " ").split()
    if "ct" in words or "cta" in words or "cbct" in words:
        return "CT"
    return "MR" if any(word in _MR_WORDS for word in words) else ""


def classes_of(dataset: Mapping[str, Any], where: Path) -> tuple[tuple[LabelClass, ...], str]:
    """Classes in the order of the network's channels, and the activation: regions are sigmoid, labels softmax."""
    labels = dataset.get("labels")
    if not isinstance(labels, dict) or "background" not in labels:
        raise BundleError(f"{where}: names no labels with a background (labels: {{'background': 0, …}})")
    named = {name: value for name, value in labels.items() if name != "ignore"}
    if any(isinstance(value, list) and len(value) > 1 for value in named.values()):
        return _regions(named, dataset.get("regions_class_order"), where), "sigmoid"
    try:
        indexed = sorted((int(value[0] if isinstance(value, list) else value), name) for name, value in named.items())
    except (TypeError, ValueError, IndexError) as error:
        raise BundleError(f"{where}: a label's value is not a whole number ({error})") from error
    if [index for index, _ in indexed] != list(range(len(indexed))):
        raise BundleError(f"{where}: labels must be numbered 0, 1, 2, … without gaps, as nnU-Net asks")
    return tuple(LabelClass(index, str(name)) for index, name in indexed), "softmax"


def _regions(named: Mapping[str, Any], order: Any, where: Path) -> tuple[LabelClass, ...]:
    names = [name for name, value in named.items() if value not in (0, [0])]
    if not isinstance(order, list) or len(order) != len(names) or not all(type(index) is int for index in order):
        raise BundleError(f"{where}: regions_class_order must hold a label for each of the {len(names)} regions")
    return tuple(LabelClass(index, str(name)) for index, name in zip(order, names, strict=True))
