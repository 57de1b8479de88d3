"""Files and stores to `Volume`, and back: NIfTI, MGH, NRRD, MetaImage, DICOM, TIFF, OME-Zarr, pictures.

docs/formats.md says what is read from each format, what is kept on writing, and what is refused.
"""

from napari_mamba.io.common.source import (
    OVERLAP,
    LabelEntry,
    acquisition,
    classes_of,
    doubts,
    series_files,
    shown_channels,
    slice_thickness,
)
from napari_mamba.io.detection import LABEL_SUFFIXES, SUFFIXES, WRITE_SUFFIXES, can_read
from napari_mamba.io.files import check_writable, read, write
from napari_mamba.io.labels.reading import LabelMap, is_label_map, read_labels
from napari_mamba.io.labels.segments import read_segments
from napari_mamba.io.lazy.opening import Opener, levels, open_volume
from napari_mamba.io.listing.places import list_series
from napari_mamba.io.listing.series import SeriesInfo
from napari_mamba.io.rows import read_rows, row_of

__all__ = [
    "LABEL_SUFFIXES",
    "OVERLAP",
    "SUFFIXES",
    "WRITE_SUFFIXES",
    "LabelEntry",
    "LabelMap",
    "Opener",
    "SeriesInfo",
    "acquisition",
    "can_read",
    "check_writable",
    "classes_of",
    "doubts",
    "is_label_map",
    "levels",
    "list_series",
    "open_volume",
    "read",
    "read_labels",
    "read_rows",
    "read_segments",
    "row_of",
    "series_files",
    "shown_channels",
    "slice_thickness",
    "write",
]
