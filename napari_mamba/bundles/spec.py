"""What a bundle says about itself: `bundle.json` as dataclasses, checked on the way in.

Keys are those of MONAI's bundle metadata (`metadata.json` of the MONAI model zoo) wherever it has one: `name`,
`version`, `task`, `description`, `authors`, `copyright`, `data_source`, `intended_use`, `references`, `eval_metrics`,
`network_data_format`. `docs/bundles.md` describes every field.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any, Literal

from napari_mamba.bundles.checks import Fields
from napari_mamba.bundles.guards.columns import Column, check_columns, columns_of
from napari_mamba.bundles.guards.kinds import (
    check_diffusion,
    check_features,
    check_frames,
    check_fusion,
    check_pair,
    images_of,
)
from napari_mamba.bundles.guards.locator import Locator, locator_of
from napari_mamba.bundles.old_keys import TILE, current_step, renamed
from napari_mamba.bundles.planning import check_planning, planning_of
from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted
from napari_mamba.radiotherapy.inputs import Inputs

FORMAT = "napari-mamba bundle"
FORMAT_VERSION = 1
TASKS = (
    "segmentation", "restoration", "classification", "dose", "registration", "slide", "fusion", "diffusion",
    "prediction", "features",
)  # fmt: skip
WITHOUT_CLASSES = ("restoration", "dose", "registration", "fusion", "diffusion", "prediction", "features")
LATERALITIES = ("", "left", "right", "both")
ACTIVATIONS = ("softmax", "sigmoid", "none")
STEPS: Mapping[str, frozenset[str]] = {
    "orient": frozenset({"axcodes"}),
    "transpose": frozenset({"axes"}),
    "crop_nonzero": frozenset({"keep_mask"}),
    "crop_to_body": frozenset({"margin", "multiple"}),
    "normalise": frozenset({"schemes"}),
    "field_of_view": frozenset({"mm", "max_mm"}),
    "resample": frozenset({"spacing", "order", "order_z", "anisotropy", "order_probabilities", "file_axes", "keep"}),
    "resize": frozenset({"shape", "antialias"}),
    "refine": frozenset({"spacing", "order", "max_factor", "profile", "data_consistency"}),
    "append_upsampling_channel": frozenset(),
    "respace": frozenset({"spacing"}),
    "binarise": frozenset({"smallest", "ml"}),
    "signed_distance": frozenset({"limit"}),
    "centre": frozenset({"size", "min_coverage", "require_whole"}),
    "slice_axis_first": frozenset(),
    "planning_grid": frozenset({"sides", "slices", "usual"}),
}
"""Preparation steps, and the options each takes beside its name; see `napari_mamba.engine.preparation`."""
POSTPROCESSING_STEPS: Mapping[str, frozenset[str]] = {
    "keep_largest": frozenset({"indices", "as_one_structure"}),
    "warn_volume": frozenset({"ml", "what", "indices"}),
    "warn_missing": frozenset({"allowed", "smallest"}),
    "warn_sides": frozenset({"pairs", "difference", "smallest"}),
    "warn_pieces": frozenset({"most", "indices", "smallest"}),
    "warn_position": frozenset({"rules", "smallest"}),
    "warn_mirrored": frozenset({"dice"}),
    "warn_thick": frozenset({"rules"}),
    "warn_unlike": frozenset({"rules"}),
}
"""Steps of a segmentation's postprocessing; `napari_mamba.engine.answers.postprocessing` carries them out."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_SUM = re.compile(r"[0-9a-f]{64}")
_MOST_NETWORKS, _LONGEST_NAME, _LARGEST_SIDE, _MOST_VOXELS = 64, 120, 4096, 2**28
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_CLASS_ARGUMENTS = ("num_classes", "out_chans", "out_channels", "number_classes", "n_classes")
_CHANNEL_ARGUMENTS = ("input_channels", "in_chans", "in_channels", "in_ch", "inp_channels")


@dataclass(frozen=True)
class LabelClass:
    """One output channel of the network, and the label it becomes.

    `index` is the value in the label map, `color` "#rrggbb", `code` a terminology code such as "SCT:10200004"
    (SNOMED CT) or empty, `meaning` the code in words as its list has it ("Liver"), `laterality` "left", "right",
    "both" or empty.
    """

    index: int
    name: str
    color: str = ""
    code: str = ""
    meaning: str = ""
    laterality: str = ""

    def __post_init__(self) -> None:
        if not self.color:
            object.__setattr__(self, "color", default_color(self.index))


@dataclass(frozen=True)
class Channel:
    """One input channel; `modality` as in MONAI and DICOM: "MR", "CT", …"""

    name: str
    modality: str = ""


Dtype = Literal["float32", "float16", "int8"]
"""How a file holds floating-point weights."""


@dataclass(frozen=True)
class SmallerTile:
    """A tile to go back to where memory ends.

    Attributes
    ----------
    size : tuple of int
        As `Tile.size`.
    kept : float, optional
        Share of the answer that stays the same with it (0 to 1), as measured: of the voxels that are labelled with
        either tile; for an image, of those that change by less than 1% of its range. None where it was not measured.
    """

    size: tuple[int, ...]
    kept: float | None = None


@dataclass(frozen=True)
class Tile:
    """The window the network sees, in voxels of the prepared volume.

    Attributes
    ----------
    size : tuple of int
        (z, y, x), or (y, x) for a 2D network, which is then run slice by slice along the first axis. Of the task
        "slide" one number: how many features a patch has.
    overlap : float
        Largest step between neighbours is `(1 - overlap) * size`; tiles are blended with Gaussian weights.
    mirror_axes : tuple of int
        Axes of `size` over whose mirrored copies the outputs are averaged (all combinations).
    divisor : tuple of int
        Another tile's sizes must be multiples of these; empty if unknown.
    fixed : bool
        True if the weights themselves depend on `size`, so that no other will do.
    accumulate_dtype : {"float32", "float16"}
        Precision in which overlapping tiles are summed; "float16" rounds as nnU-Net's predictor does.
    left_right_pairs : tuple of int
        Labels of left and right structures in pairs, left, right, left, right: in copies mirrored along the last axis
        their outputs change places.
    fit_tiles : bool
        Tiles may be shorter where as many of them cover an image as well: less is computed twice.
    round_robin : bool
        Each mirrored copy is answered by one of the ensemble's networks, in turn, instead of by all of them.
    smaller : tuple of SmallerTile
        What smaller tiles cost, largest first; empty where that was not measured.
    frames : int
        How many frames of a film the network sees at once; 0: it sees one image. Windows of frames overlap as tiles do.
    reflect_below : tuple of int
        An image shorter than this along any axis of `size` is filled up to a tile with its mirror image, not with
        zeros: its border cuts through what training images had in their middle. Empty: zeros.
    """

    size: tuple[int, ...]
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    divisor: tuple[int, ...] = ()
    fixed: bool = False
    accumulate_dtype: str = "float32"
    left_right_pairs: tuple[int, ...] = ()
    fit_tiles: bool = False
    round_robin: bool = False
    smaller: tuple[SmallerTile, ...] = ()
    frames: int = 0
    reflect_below: tuple[int, ...] = ()


@dataclass(frozen=True)
class Network:
    """A name in the registry of `napari_mamba.models`, and the arguments that build it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BundleSpec:
    """Everything in `bundle.json` but the names and checksums of the weight files.

    Output channel i of the network stands for `classes[i]`. With `activation` "softmax" the likeliest channel wins
    (`classes[0]` is the background); with "sigmoid" channels above one half are painted in order, later over earlier,
    on a background of 0 (nnU-Net's regions). `planning` is what a bundle of the task "dose" takes of a plan, and
    `locator` the bundle that finds where in a larger image a segmentation looks; `columns` are those of a table, of
    which the network takes a row beside the image. `member_networks` are those of an ensemble of several kinds, one for
    each file of weights, `network` the first of them; empty where all are `network`.

    Raises
    ------
    BundleError
        If a value cannot be: an unknown task or step, a mirror axis the tile has not, a class count other than the
        network's.
    """

    name: str
    version: str
    title: str
    task: str
    network: Network
    channels: tuple[Channel, ...]
    preparation: tuple[Mapping[str, Any], ...]
    tile: Tile
    activation: str = "softmax"
    classes: tuple[LabelClass, ...] = ()
    description: str = ""
    authors: str = ""
    copyright: str = ""
    licence: str = ""
    data_source: str = ""
    intended_use: str = ""
    references: tuple[str, ...] = ()
    postprocessing: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    changelog: Mapping[str, str] = field(default_factory=dict)
    planning: Inputs | None = None
    locator: Locator | None = None
    columns: tuple[Column, ...] = ()
    member_networks: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        several = ("channels", "preparation", "classes", "references", "postprocessing", "columns", "member_networks")
        for attribute in several:
            object.__setattr__(self, attribute, tuple(getattr(self, attribute)))
        check(self)

    def networks_of(self, count: int) -> tuple[Network, ...]:
        """The network of each of `count` files of weights."""
        return self.member_networks or (self.network,) * count


def check(spec: BundleSpec) -> None:
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
    spec: BundleSpec, what: str, steps: Sequence[Mapping[str, Any]], registry: Mapping[str, frozenset[str]]
) -> None:
    for step in steps:
        name = step.get("step", "")
        known = registry.get(name) if isinstance(name, str) else None
        if known is None:
            raise BundleError(f"bundle {spec.name}: {what} step {quoted(name)} is not one of {', '.join(registry)}")
        if odd := sorted(set(step) - known - {"step"}):
            raise BundleError(f"bundle {spec.name}: {what} step {step['step']!r} has no option {quoted(odd[0])}")


def _check_tile(spec: BundleSpec) -> None:
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


def _check_classes(spec: BundleSpec) -> None:
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


def _check_count(spec: BundleSpec, names: tuple[str, ...], count: int, what: str) -> None:
    for name, network in product(names, spec.networks_of(1)):
        wanted = network.arguments.get(name)
        if isinstance(wanted, int) and wanted != count:
            raise BundleError(f"bundle {spec.name}: lists {count} {what}, but its network has {wanted}")


def default_color(index: int) -> str:
    """A colour for a label that came without one: hues a golden angle apart, black for the background.

    >>> default_color(0), default_color(1)
    ('#000000', '#d94545')
    """
    if index == 0:
        return "#000000"
    hue = (index - 1) * 0.61803398875 % 1.0
    rgb = colorsys.hsv_to_rgb(hue, 0.68, 0.85 if (index // 8) % 2 == 0 else 0.65)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def to_json(spec: BundleSpec, weights: Mapping[str, str], others: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`bundle.json` as a dict; `weights`, and `others` beside them, map each file's name to its SHA-256."""
    values = asdict(spec)
    values["eval_metrics"] = values.pop("metrics")
    if spec.planning is None:
        del values["planning"]
    if spec.locator is None:
        del values["locator"]
    if not spec.columns:
        del values["columns"]
    if not spec.member_networks:
        del values["member_networks"]
    if not spec.tile.smaller:
        del values["tile"]["smaller"]
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    tail = {
        "network_data_format": _network_data_format(spec),
        "weights": list(weights),
        "sha256": {**weights, **(others or {})},
    }
    return {**head, **values, **tail}


def from_json(values: Any, where: str) -> tuple[BundleSpec, tuple[str, ...], dict[str, str]]:
    """Read `bundle.json`, already parsed.

    Parameters
    ----------
    values : Any
        What `json.loads` gave.
    where : str
        The bundle's place, for messages.

    Returns
    -------
    spec, weights, sha256
        `weights` are file names; `sha256` maps the names of files to their checksums.

    Raises
    ------
    BundleError
        If a field is missing, of the wrong type, or contradicts another.
    """
    top = Fields(values, where)
    if top.text("format", "") != FORMAT:
        raise BundleError(f'{where}: is not a napari-mamba bundle (no "format": "{FORMAT}")')
    if top.number("format_version", 0) > FORMAT_VERSION:
        raise BundleError(f"{where}: was written by a later version of napari-mamba: update napari-mamba")
    try:
        spec = _spec(top)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise BundleError(f"{where}: contradicts itself ({type(error).__name__}: {quoted(error)})") from error
    weights = top.texts("weights")
    if not 0 < len(weights) <= _MOST_NETWORKS or len(set(weights)) < len(weights):
        raise BundleError(f"{where}: 'weights' names each of 1 to {_MOST_NETWORKS} weight files once")
    if spec.member_networks and len(spec.member_networks) != len(weights):
        raise BundleError(
            f"{where}: names {len(weights)} weight files, and {len(spec.member_networks)} networks for them"
        )
    for name in weights:
        if not _WEIGHTS.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise BundleError(f"{where}: weights are '.safetensors' files beside bundle.json, not {quoted(name)}")
    sums = {str(name): str(value).lower() for name, value in top.mapping("sha256", {}).items()}
    if odd := [name for name, value in sums.items() if not _SUM.fullmatch(value)]:
        raise BundleError(f"{where}: the sha256 of {quoted(odd[0])} is no checksum: get the bundle again")
    return spec, weights, sums


def _spec(top: Fields) -> BundleSpec:
    return BundleSpec(
        **{key: top.text(key) for key in ("name", "version", "title", "task")},
        network=_network(top.fields("network")),
        channels=tuple(Channel(one.text("name"), one.text("modality", "")) for one in top.items("channels")),
        preparation=tuple(current_step(one.values) for one in top.items("preparation")),
        tile=_tile(top.fields("tile")),
        activation=top.text("activation", "softmax"),
        classes=tuple(_label_class(one) for one in top.items("classes", ())),
        **{key: top.text(key, "") for key in ("description", "authors", "copyright", "licence")},
        **{key: top.text(key, "") for key in ("data_source", "intended_use")},
        references=top.texts("references", ()),
        postprocessing=tuple(current_step(one.values) for one in top.items("postprocessing", ())),
        metrics=top.mapping("eval_metrics", {}),
        changelog=top.mapping("changelog", {}),
        planning=planning_of(top.fields("planning")) if "planning" in top.values else None,
        locator=locator_of(top.fields("locator")) if "locator" in top.values else None,
        columns=columns_of(top.items("columns", ())),
        member_networks=tuple(_network(one) for one in top.items("member_networks", ())),
    )


def _network(one: Fields) -> Network:
    return Network(one.text("name"), one.mapping("arguments", {}))


def _tile(one: Fields) -> Tile:
    one = Fields(renamed(one.values, TILE), one.where)
    return Tile(
        size=one.integers("size"),
        overlap=one.number("overlap", 0.5),
        mirror_axes=one.integers("mirror_axes", ()),
        divisor=one.integers("divisor", ()),
        fixed=one.flag("fixed", False),
        accumulate_dtype=one.text("accumulate_dtype", "float32"),
        left_right_pairs=one.integers("left_right_pairs", ()),
        fit_tiles=one.flag("fit_tiles", False),
        round_robin=one.flag("round_robin", False),
        smaller=tuple(SmallerTile(each.integers("size"), each.number("kept")) for each in one.items("smaller", ())),
        frames=one.integer("frames", 0),
        reflect_below=one.integers("reflect_below", ()),
    )


def _label_class(one: Fields) -> LabelClass:
    texts = {key: one.text(key, "") for key in ("color", "code", "meaning", "laterality")}
    return LabelClass(one.integer("index"), one.text("name"), **texts)


def _network_data_format(spec: BundleSpec) -> dict[str, Any]:
    """MONAI's description of a network's input and output, derived from the rest, for its readers."""
    modality = {channel.modality for channel in spec.channels if channel.modality}
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "/".join(sorted(modality)) or "n/a",
        "num_channels": len(spec.channels),
        "spatial_shape": list(spec.tile.size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(i): channel.name for i, channel in enumerate(spec.channels)},
    }
    names = [label.name for label in spec.classes] or [channel.name for channel in spec.channels]
    names = ["fused image"] if spec.task == "fusion" else names
    names = [f"dose, 1 is {spec.planning.unit:g} Gy"] if spec.planning is not None else names
    names = [f"displacement along {axis}, voxels" for axis in "zyx"] if spec.task == "registration" else names
    output = {
        "type": "probabilities" if spec.classes else "image",
        "format": spec.task,
        "num_channels": len(names),
        "dtype": "float32",
        "is_patch_data": spec.task not in ("classification", "slide", "features"),
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": output}}
