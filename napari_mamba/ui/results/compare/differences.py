"""Layers that show where two others differ, and the numbers of how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import SignalGroupDescriptor

from napari_mamba.bundles import LabelClass
from napari_mamba.errors import InputError
from napari_mamba.measure import Agreement, ImageAgreement, image_agreement, label_agreement, numbered_alike, onto_grid
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.results.classes.record import classes_of
from napari_mamba.ui.results.maps.look import signed_look

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Layer

ONLY_FIRST, ONLY_SECOND, OTHER_CLASS = 1, 2, 3


@dataclass(frozen=True)
class Measured:
    """Numbers about two layers: rows for labels, one answer for images."""

    first: str
    second: str
    rows: tuple[Agreement, ...] = ()
    images: ImageAgreement | None = None
    tolerance_mm: float = 1.0
    units: str = "mm"
    note: str = ""

    def csv(self) -> str:
        """As comma-separated text."""
        import csv
        import io
        from dataclasses import asdict

        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if self.images is not None:
            facts = asdict(self.images)
            writer.writerow(["first", "second", *facts])
            writer.writerow([self.first, self.second, *facts.values()])
            return out.getvalue()
        names = ["first", "second", "class", "index", "dice", "hausdorff95_mm", "surface_dice", "mean_distance_mm"]
        writer.writerow([*names, "tolerance_mm", "ml_first", "ml_second", "difference_ml", "difference_percent"])
        for row in self.rows:
            numbers = [row.dice, row.hausdorff95_mm, row.surface_dice, row.mean_distance_mm, self.tolerance_mm]
            numbers += [*row.ml, row.difference_ml, row.difference_percent]
            texts = ["" if value != value else f"{value:.6g}" for value in numbers]
            writer.writerow([self.first, self.second, row.name, row.index, *texts])
        return out.getvalue()


@dataclass
class Pair:
    """The two layers that are compared, the measurement of them, and whether it still holds."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    first: Any = None
    second: Any = None
    tolerance_mm: float = 1.0
    measured: Measured | None = None
    outdated: bool = False

    @property
    def kind(self) -> str:
        """ "labels", "images", "mixed", or "" where a layer is missing or both are the same."""
        if self.first is None or self.second is None or self.first is self.second:
            return ""
        kinds = {type(layer).__name__ for layer in (self.first, self.second)}
        return {"Labels": "labels", "Image": "images"}.get(kinds.pop(), "") if len(kinds) == 1 else "mixed"


def measure_layers(first: Layer, second: Layer, tolerance_mm: float = 1.0) -> Measured:
    """Dice and the like of two labels layers, PSNR and SSIM of two images.

    Raises
    ------
    InputError
        If they are of different kinds, or cannot be compared.
    """
    one, _ = layers_to_volume([first])
    two, _ = layers_to_volume([second])
    kinds = {type(layer).__name__ for layer in (first, second)}
    if kinds == {"Labels"}:
        two, names, note = numbered_alike(two, *_names(first, second))
        rows = label_agreement(one, two, tolerance_mm=tolerance_mm, names=names)
        return Measured(first.name, second.name, tuple(rows), None, tolerance_mm, one.units, note)
    if kinds == {"Image"}:
        return Measured(first.name, second.name, (), image_agreement(one, two), tolerance_mm, one.units)
    raise InputError("one is an image and the other is labels: choose two of a kind to measure")


def _names(first: Labels, second: Labels) -> tuple[dict[int, str], dict[int, str]]:
    one, two = ({c.index: c.name for c in classes_of(layer)} for layer in (first, second))
    return one, two


def label_difference(first: Labels, second: Labels) -> Labels:
    """A labels layer of where two label maps differ, on the first one's grid.

    Raises
    ------
    InputError
        If they share no voxel.
    """
    from napari.layers import Labels as LabelsLayer

    from napari_mamba.ui.results.layers import class_colormap

    one, place = layers_to_volume([first])
    two, _, _ = numbered_alike(layers_to_volume([second])[0], *_names(first, second))
    a, b = np.asarray(one.data)[0], np.asarray(onto_grid(two, one).data)[0]
    data = np.zeros(a.shape, np.uint8)
    data[(a != 0) & (b == 0)] = ONLY_FIRST
    data[(a == 0) & (b != 0)] = ONLY_SECOND
    data[(a != 0) & (b != 0) & (a != b)] = OTHER_CLASS
    classes = [
        LabelClass(ONLY_FIRST, f"only in {first.name}", "#3a8fd9"),
        LabelClass(ONLY_SECOND, f"only in {second.name}", "#e4a63a"),
        LabelClass(OTHER_CLASS, "another class", "#d0407a"),
    ]
    record = {**place.geometry, "classes": [c.__dict__.copy() for c in classes], "source": _source(first)}
    return LabelsLayer(
        place.to_layer_axes(data),
        name=f"difference: {first.name} / {second.name}",
        colormap=class_colormap(classes),
        metadata={KEY: record},
        opacity=0.8,
        **place.transforms,
    )


def image_difference(first: Image, second: Image) -> Image:
    """An image of the second minus the first, on the first one's grid: blue where it is less, red where it is more.

    Raises
    ------
    InputError
        If they share no voxel.
    """
    from napari.layers import Image as ImageLayer

    one, place = layers_to_volume([first])
    two, _ = layers_to_volume([second])
    moved = onto_grid(two, one, order=1)
    data = np.asarray(moved.data[0], np.float32) - np.asarray(one.data[0], np.float32)
    return ImageLayer(
        place.to_layer_axes(data),
        name=f"difference: {second.name} − {first.name}",
        metadata={KEY: {**place.geometry, "source": first.name, "role": "map"}},
        **signed_look(data),
        **place.transforms,
    )


def _source(layer: Layer) -> str:
    return layer.metadata.get(KEY, {}).get("source", "")
