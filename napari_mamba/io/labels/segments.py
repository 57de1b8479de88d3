"""Segments that may overlap, each as a mask of its own, from the files that can hold such."""

from __future__ import annotations

from os import PathLike

from napari_mamba.io.common.source import LabelEntry
from napari_mamba.io.paths import expanded
from napari_mamba.volume import Volume


def read_segments(path: str | PathLike[str]) -> list[tuple[LabelEntry, Volume]]:
    """The segments of a DICOM SEG, or of a `.seg.nrrd` in which some overlap.

    `read_labels` gives one label map of them, in which the later one lies on top.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of (LabelEntry, Volume)
        Each segment's name, colour and code, and its mask: one channel of bool, on the segmentation's own grid. Empty
        for every other file.

    Raises
    ------
    InputError
        If it cannot be read.

    Examples
    --------
    >>> [entry.name for entry, mask in read_segments("plan.seg.nrrd")]  # doctest: +SKIP
    ['PTV70', 'spinal cord']
    """
    from napari_mamba.io.formats import dicom, nrrd

    place = expanded(path)
    if place.name.lower().endswith((".nrrd", ".nhdr")):
        return nrrd.segments(place)
    if place.is_file() and dicom.is_dicom(place):
        from napari_mamba.io.formats.dicom.segmentation import segments

        return segments(place)
    return []
