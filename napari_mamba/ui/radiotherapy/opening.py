"""RTSTRUCT and RTDOSE dropped into the window: labels with names, and doses in Gy. Qt only where a window is open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba import io
from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.radiotherapy.dicom.beams import summed
from napari_mamba.radiotherapy.dicom.grids import drawn_on, frame_at, own_grid, planning_image
from napari_mamba.radiotherapy.dicom.rtdose import notes_of, read_dose
from napari_mamba.radiotherapy.dicom.rtstruct import read_structures
from napari_mamba.radiotherapy.sources import segment_structure
from napari_mamba.radiotherapy.structures import OUTSIDE, StructureSet
from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.radiotherapy.layers import dose_data, frame_of, is_image, structures_data
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.ui.files.layer_data import LayerData

MODALITIES = ("RTDOSE", "RTSTRUCT")


def open_file(path: Path | str, modality: str) -> list[LayerData]:
    """Layers of an RTDOSE or RTSTRUCT file.

    Contours are filled on the grid of the open image that they were drawn on; else on that of its series, where its
    files lie beside the RTSTRUCT; else on a grid of their own.

    Raises
    ------
    InputError
        As `read_dose` and `read_structures` do; a window shows it as a notification.
    """
    path = Path(path)
    if modality == "RTDOSE":
        for note in notes_of(path):
            _tell(note)
        return [dose_data(read_dose(path), str(path), frame_at(path))]
    grid = image_for(path, open_images())
    structures = read_structures(path, grid, frame=_frame(grid))
    for note in structures.notes:
        _tell(note)
    return structures_data(structures, grid, str(path))


def open_sum(paths: Sequence[Path]) -> list[LayerData]:
    """The layer of the sum of several RTDOSE files of one plan; raises `InputError` where they cannot be summed."""
    dose, notes = summed(paths)
    for note in notes:
        _tell(note)
    name = f"sum of {len(paths)} doses"
    return [dose_data(dose.with_data(dose.data, name=name), str(paths[0].parent), frame_at(paths[0]))]


def overlapping(path: Path, grid: Volume) -> list[LayerData]:
    """Layers of a segmentation whose segments overlap, as few as hold them all whole; `grid` is its label map."""
    structures = StructureSet(
        tuple(segment_structure(entry, mask.data[0]) for entry, mask in io.read_segments(path)), grid.affine
    )
    return structures_data(structures, grid, str(path))


def image_for(path: Path, layers: list[Any]) -> Volume:
    """The image on whose grid an RTSTRUCT is filled.

    Parameters
    ----------
    path : Path
    layers : list of Image layers
        Those that are open, the uppermost first.
    """
    frames = drawn_on(path).frames
    known = [(layer, frame_of(layer)) for layer in layers]
    for layer in [layer for layer, own in known if own in frames]:
        return _volume(layer)
    if (beside := planning_image(path)) is not None:
        return beside
    for layer in [layer for layer, own in known if not own]:  # an image without DICOM's headers: by its place alone
        volume = _volume(layer)
        try:
            found = read_structures(path, volume)
        except InputError:
            continue
        if not any(OUTSIDE in note for note in found.notes):
            return volume
    return own_grid(path)


def open_images() -> list[Any]:
    """The images in the current viewer; none where there is no window."""
    import napari

    viewer = napari.current_viewer()
    return [] if viewer is None else [layer for layer in reversed(viewer.layers) if is_image(layer)]


def _frame(grid: Volume) -> str:
    """The frame of reference UID of the series that a volume was read from; empty where it was none."""
    files = io.series_files(grid.header)
    return frame_at(files[0]) if files else ""


def _volume(layer: Any) -> Volume:
    volume, _ = layers_to_volume([layer])
    empty = np.broadcast_to(np.uint8(0), volume.data.shape)
    return volume.with_data(empty, volume.channel_names)


def _tell(note: str) -> None:
    from napari.utils.notifications import show_info

    show_info(note[:1].upper() + note[1:] + ".")


def layers_or_none(path: str) -> list[LayerData] | None:
    """Layers of a file of radiotherapy; None for all others."""
    from napari_mamba.radiotherapy.sources import modality

    try:
        kind = modality(Path(path))
    except NapariMambaError:
        return None
    return open_file(path, kind) if kind in MODALITIES else None
