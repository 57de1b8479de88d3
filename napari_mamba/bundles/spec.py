"""What a bundle says about itself: `bundle.json` as dataclasses, checked on the way in.

Keys are those of MONAI's bundle metadata (`metadata.json` of the MONAI model zoo) wherever it has one: `name`,
`version`, `task`, `description`, `authors`, `copyright`, `data_source`, `intended_use`, `references`, `eval_metrics`,
`network_data_format`. `docs/bundles.md` describes every field; `description/` reads and writes them.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_mamba.bundles.guards.columns import Column
from napari_mamba.bundles.guards.consistency import check
from napari_mamba.bundles.guards.locator import Locator
from napari_mamba.radiotherapy.inputs import Inputs


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
