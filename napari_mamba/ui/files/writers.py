"""napari writers: a layer on its source's grid, labels with the names of their classes; or all of them, a file each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer

from napari_mamba import io
from napari_mamba.bundles import LabelClass
from napari_mamba.errors import InputError, OutputError
from napari_mamba.ui.files.save_order import write_by_another
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.results.classes import record
from napari_mamba.ui.results.compare.beside import VIEW_ONLY

PLAIN = ".nii.gz"
"""The format of a name without an ending."""
DRAWN = {"points": ".csv", "shapes": ".csv", "surface": ".ply"}
"""What has no voxels goes into the folder of all layers too, in a format of its own."""


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an image layer; the suffix of `path` names the format.

    Without a suffix it is ".nii.gz"; one that no medical format has goes to the plugin that knows it.

    Parameters
    ----------
    path : str
    data : array-like
    attributes : dict
        The layer's, as napari hands them to writers.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    InputError, OutputError
        One sentence, which napari shows as a notification.
    """
    return _write(path, data, attributes, "image")


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer with its class names; parameters as those of `write_image`."""
    return _write(path, data, attributes, "labels")


def write_layers(path: str, layers: Sequence[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Write several layers, each with its geometry, one file a layer, into a folder.

    Parameters
    ----------
    path : str
        Its suffix is the format of each file, and what comes before it the folder, which is made where it is missing.
    layers : sequence of (data, attributes, type)
        Images and labels; points and shapes, which become CSV files as napari writes them, in the layer's own
        coordinates; surfaces, which become PLY in LPS millimetres. Copies for a view, and its lines, are left out.

    Returns
    -------
    list of str
        The files, named after their layers.

    Raises
    ------
    InputError, OutputError
        One sentence, which napari shows as a notification; the files before the one it speaks of are written. No file
        that is there already is replaced.

    Examples
    --------
    >>> write_layers("patient.nii.gz", layers)  # doctest: +SKIP
    ['patient/T1.nii.gz', 'patient/hippocampus-mr labels.nii.gz']
    """
    folder, suffix = _folder(path)
    layers = [one for one in layers if not one[1].get("metadata", {}).get(KEY, {}).get(VIEW_ONLY)]
    names: list[str] = []
    for _, attributes, _ in layers:
        names.append(_free_name(attributes["name"], names))
    files = [folder / f"{name}{DRAWN.get(kind, suffix)}" for name, (_, _, kind) in zip(names, layers, strict=True)]
    _refuse_to_replace(files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): choose another place") from error
    written: list[str] = []
    for file, (data, attributes, kind) in zip(files, layers, strict=True):
        write = {"surface": _write_surface}.get(kind, _write_drawn if kind in DRAWN else _write)
        written += write(str(file), data, attributes, kind)
    return written


def _write_drawn(path: str, data: Any, attributes: dict[str, Any], kind: str) -> list[str]:
    """Points or shapes, as napari's own plugin writes them."""
    written = write_by_another(path, data, attributes, kind)
    if not written:
        raise OutputError(f"no plugin writes {kind} as CSV: take the layer '{attributes['name']}' away and save again")
    return written


def _write_surface(path: str, data: Any, attributes: dict[str, Any], kind: str) -> list[str]:
    from napari_mamba.figures import write_surfaces
    from napari_mamba.ui.results.space.surfaces import surface_of_layer

    return [str(one) for one in write_surfaces([surface_of_layer(Layer.create(data, attributes, kind))], path)]


def _write(path: str, data: Any, attributes: dict[str, Any], kind: str) -> list[str]:
    """One layer into one file."""
    place = Path(path)
    if not place.suffix:
        place = place.with_name(place.name + PLAIN)
        _refuse_to_replace([place])
    if not place.name.lower().endswith(tuple(io.WRITE_SUFFIXES)):
        written = write_by_another(path, data, attributes, kind)
        if written:
            return written
    layer = Layer.create(data, attributes, kind)
    try:
        volume, _ = layers_to_volume([layer])
    except InputError:  # a colour image, a film: a TIFF takes what a volume cannot be
        written = write_by_another(path, data, attributes, kind)
        if not written:
            raise
        return written
    return [str(io.write(volume, place, classes=classes_of(layer) if isinstance(layer, Labels) else ()))]


def _folder(path: str) -> tuple[Path, str]:
    """The folder that a name stands for, and the ending of the files in it."""
    place = Path(path)
    for suffix in sorted({*io.WRITE_SUFFIXES, ".ome.zarr"}, key=len, reverse=True):
        if place.name.lower().endswith(suffix):
            return place.with_name(place.name[: -len(suffix)] or "layers"), suffix
    if not place.suffix:
        return place, PLAIN
    raise OutputError(
        f"{place.suffix} is no format for several layers with their geometry: choose a name that ends in "
        f"{', '.join(io.WRITE_SUFFIXES)}"
    )


def _refuse_to_replace(files: Sequence[Path]) -> None:
    """The dialog asks before it replaces the file that was typed; it cannot know those that come of it."""
    for file in files:
        if file.exists():
            raise OutputError(f"{file.name} is in {file.parent} already: choose another name, or remove it first")


def _free_name(name: str, others: Sequence[str]) -> str:
    """A layer's name as a file can have it, and none of `others`."""
    stem = re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "_", name).strip(" .") or "layer"
    taken = {other.split(".", 1)[0].lower() for other in others}
    number, free = 2, stem
    while free.split(".", 1)[0].lower() in taken:
        free, number = f"{stem} {number}", number + 1
    return free


def classes_of(layer: Labels) -> list[LabelClass]:
    """The classes of a labels layer.

    Those of the bundle that made it; else the "name" column of its features with an "index" column; else one "label N"
    for each value there is. Colours are those on the screen.
    """
    drawn = np.unique(np.asarray(layer.data[0] if layer.multiscale else layer.data)).tolist()
    return record.classes_of(layer, [int(value) for value in drawn if value > 0])
