"""Doses and structures as napari layers, and back. No Qt.

A dose layer's record (`layer.metadata["napari_mamba"]`) says `dose_unit` ("Gy" or "cGy"); what came from DICOM also has
`frame`, its frame of reference UID. The classes of structures may have `kind` and `prescription` beside their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba import io
from napari_mamba.bundles.spec import default_color
from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.comparison import on_grid
from napari_mamba.radiotherapy.dicom.grids import frame_at
from napari_mamba.radiotherapy.labels import packed, structures_in
from napari_mamba.radiotherapy.sources import UNITS, snomed
from napari_mamba.radiotherapy.structures import Structure, StructureSet, is_outline, joined
from napari_mamba.ui.files.layer_data import LayerData, labels_data
from napari_mamba.ui.layers import KEY, layers_to_volume, volume_to_layers
from napari_mamba.ui.results.classes.record import classes_of
from napari_mamba.ui.results.compare.beside import is_view_only
from napari_mamba.ui.results.maps.look import dose_look
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari.layers import Image, Labels

UNIT = "dose_unit"
_SAME_PLACE_MM = 1e-2


# ---- volumes as layers


def dose_data(dose: Volume, path: str = "", frame: str = "") -> LayerData:
    """The layer data of a dose in Gy."""
    data, keywords, kind = volume_to_layers(dose, path)[0]
    record = {**keywords["metadata"][KEY], UNIT: "Gy", "frame": frame}
    look = dose_look(float(np.max(dose.data)))
    return data, {**keywords, **look, "metadata": {KEY: record}}, kind


def structures_data(structures: StructureSet, grid: Volume, path: str = "") -> list[LayerData]:
    """Layer data of structures: labels with names and colours, as many layers as overlaps need.

    Parameters
    ----------
    structures : StructureSet
        On the grid of `grid`, whose header is kept.
    """
    maps = packed(structures)
    name = Path(path).stem or "structures"
    found = []
    for number, one in enumerate(maps, 1):
        title = name if len(maps) == 1 else f"{name} {number} of {len(maps)}"
        volume = grid.with_data(one.values[np.newaxis], ("structures",), name=title)
        classes = [_Class(index, structure) for index, structure in one.structures.items()]
        data, keywords, kind = labels_data(volume_to_layers(volume, path)[0], classes)
        record = {**keywords["metadata"][KEY], "frame": structures.frame}
        if number == 1:  # the layers of one file share them
            record["notes"] = structures.notes
        for entry in record["classes"]:
            structure = one.structures.get(entry["index"])
            if structure is not None:
                entry |= {"kind": structure.kind, "prescription": structure.prescription}
        enclosing = all(is_outline(structure) for structure in one.structures.values())
        shown = {"opacity": 0.5, "visible": not enclosing, "metadata": {KEY: record}, "name": title}
        found.append((data, {**keywords, **shown}, kind))
    return found[::-1]  # small structures last, so on top


class _Class:
    """A class as `labels_data` takes it."""

    def __init__(self, index: int, structure: Structure):
        self.index, self.name = index, structure.name
        self.code = f"SCT:{structure.code}" if structure.code else ""
        self.color = structure.color or default_color(index)


# ---- layers as volumes


def is_image(layer: Any) -> bool:
    """Whether a layer may be a dose or a CT: a volume of grey values that is no explanation of something else."""
    plain_image = type(layer).__name__ == "Image" and not layer.rgb and layer.ndim == 3
    return plain_image and not is_view_only(layer) and layer.metadata.get(KEY, {}).get("role") != "map"


def is_dose(layer: Any) -> bool:
    """Whether a layer is known to hold a dose: from RTDOSE, from a model, or because the user said so."""
    return is_image(layer) and UNIT in layer.metadata.get(KEY, {})


def is_structures(layer: Any) -> bool:
    """Whether a layer holds labels of a volume."""
    return type(layer).__name__ == "Labels" and layer.ndim == 3 and not is_view_only(layer)


def unit_of(layer: Any) -> str:
    """ "Gy" or "cGy": what the layer's values are."""
    return str(layer.metadata.get(KEY, {}).get(UNIT, "Gy"))


def dose_of(layer: Image) -> Volume:
    """A layer as a dose in Gy."""
    volume, _ = layers_to_volume([layer])
    values = np.asarray(volume.data, np.float32) * np.float32(UNITS[unit_of(layer)])
    return volume.with_data(values, ("dose in Gy",), name=layer.name)


def frame_of(layer: Any) -> str:
    """The frame of reference UID of a layer that came from DICOM, or was made of one that did; else empty."""
    record = layer.metadata.setdefault(KEY, {})
    if "frame" not in record:
        series = [str(file) for file in io.series_files(record.get("header"))[:1]]
        path = next(iter(series), record.get("path", "") if "bundle" not in record else "")
        record["frame"] = frame_at(path) if path and Path(path).exists() else ""
    return str(record["frame"] or "")


def check_frames(layers: Sequence[Any]) -> None:
    """Raise `InputError` where two layers lie in different frames of reference."""
    known = [(layer, frame_of(layer)) for layer in layers]
    known = [(layer, frame) for layer, frame in known if frame]
    for layer, frame in known[1:]:
        if frame != known[0][1]:
            raise InputError(
                f"'{layer.name}' lies in another frame of reference than '{known[0][0].name}': choose those of one "
                "image, or register the two first"
            )


def structures_of(layers: Sequence[Labels], grid: Volume | None = None) -> StructureSet:
    """The structures of labels layers, as one set.

    Parameters
    ----------
    layers : sequence of Labels
    grid : Volume, optional
        Where they are wanted; the first layer's own grid if it is not given. Layers on other grids are brought onto it,
        each voxel the nearest label's.

    Raises
    ------
    InputError
        If there is no layer, two disagree about a structure, or lie in different frames of reference.
    """
    if not layers:
        raise InputError("no structures are chosen: open an RTSTRUCT or labels, and tick their layer")
    check_frames(layers)
    sets = []
    for layer in layers:
        notes = list(layer.metadata.get(KEY, {}).get("notes", ()))
        volume, _ = layers_to_volume([layer])
        grid = volume if grid is None else grid
        values = np.asarray(volume.data[0])
        if volume.shape != grid.shape or np.abs(volume.affine - grid.affine).max() > _SAME_PLACE_MM:
            values = np.rint(on_grid(volume.with_data(values[np.newaxis]), grid, order=0)).astype(int)
            if not values.any() and np.asarray(volume.data).any():
                raise InputError(f"'{layer.name}' lies outside the image: choose the structures of this image")
            notes.append(f"'{layer.name}' was brought onto another grid")
        found = structures_in(values, _known(layer))
        sets.append(StructureSet(tuple(found), grid.affine, frame_of(layer), tuple(notes)))
    return joined(sets)


def _known(layer: Labels) -> Mapping[int, Structure]:
    """Name, colour, kind, prescription and code by number; the masks are empty."""
    record = {int(entry["index"]): entry for entry in layer.metadata.get(KEY, {}).get("classes", ())}
    nothing = np.zeros((0, 0, 0), bool)
    found = {}
    for one in classes_of(layer):
        entry = record.get(one.index, {})
        prescription, code = entry.get("prescription"), snomed(str(entry.get("code") or ""))
        found[one.index] = Structure(one.name, nothing, one.color, str(entry.get("kind") or ""), prescription, code)
    return found
