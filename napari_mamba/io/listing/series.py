"""One image that may be opened: what its header tells, and a preview."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError, Option
from napari_mamba.io.common.frames import Frame
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.io.common.colour import Colour
    from napari_mamba.io.formats.dicom.headers import Slice


@dataclass(frozen=True)
class SeriesInfo:
    """One image that may be opened, by its header.

    Attributes
    ----------
    paths : tuple of Path
        Its files, or the folder of a store.
    format : str
        "dicom", "nifti", "mgh", "nrrd", "metaimage", "tiff", "ome_zarr" or "pictures".
    title : str
        For a list: number, modality and description of a DICOM series, else the file's name.
    uid, number, description, modality, patient, study : str
        Of a DICOM series; empty where the format has none.
    shape : (int, int, int) or None
        Voxels along (z, y, x); None where the header alone does not tell.
    spacing : (float, float, float) or None
        In mm along (z, y, x).
    units : str
        "mm" or "pixel".
    channels, frames : int
        Values a voxel; time points, echoes or diffusion weights, of which one is chosen.
    colour, labels : bool
        A colour image; a segmentation.
    images, moments : tuple of Option
        Values for `series` where one file holds several images; for `frame` where there are several frames.
    size_bytes : int
        On disk.
    problem : str
        Why it cannot be read, in one sentence; empty where nothing is known against it.
    """

    paths: tuple[Path, ...]
    format: str
    title: str
    uid: str = ""
    number: str = ""
    description: str = ""
    modality: str = ""
    patient: str = ""
    study: str = ""
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    units: str = "mm"
    channels: int = 1
    frames: int = 1
    colour: bool = False
    labels: bool = False
    images: tuple[Option, ...] = ()
    moments: tuple[Option, ...] = ()
    size_bytes: int = 0
    problem: str = ""
    _slices: tuple[Slice, ...] = field(default=(), repr=False, compare=False)

    def read(self, *, frame: Frame = None, colour: Colour = None, series: str | int | None = None) -> Volume:
        """The image; parameters and errors as those of `napari_mamba.io.read`."""
        from napari_mamba.io.files import read

        if self.problem:
            raise InputError(self.problem)
        target: Any = list(self.paths) if len(self.paths) > 1 else self.paths[0]
        if self.format == "dicom":
            series = None if len(self.paths) > 1 else self.uid or None
        return read(target, frame=frame, colour=colour, series=series)

    def preview(self, size: int = 128) -> np.ndarray:
        """The middle slice, at most `size` pixels along a side, windowed between its 1st and 99th percentile.

        Of a DICOM series that slice's file alone is read, of an OME-Zarr that slice's chunks.

        Returns
        -------
        ndarray of uint8, shape (rows, columns)

        Raises
        ------
        InputError
            If it cannot be read.
        """
        plane = self._middle()
        step = max(1, -(-max(plane.shape) // size))
        return windowed(plane[::step, ::step])

    def _middle(self) -> np.ndarray:
        if self._slices:
            from napari_mamba.io.formats.dicom import pixels

            middle = self._slices[len(self._slices) // 2]
            return np.asarray(pixels.voxels([middle], "grey" if self.colour else None)[0, 0], dtype=np.float32)
        first: Frame = 0 if self.frames > 1 else None
        image = self.images[0].value if self.images else None
        volume = self.read(frame=first, colour="grey" if self.colour else None, series=image)
        return np.asarray(volume.data[0, volume.shape[0] // 2], dtype=np.float32)


def windowed(plane: np.ndarray) -> np.ndarray:
    """Values (rows, columns) as grey levels, black and white at the 1st and 99th percentile."""
    finite = plane[np.isfinite(plane)]
    if finite.size == 0:
        return np.zeros(plane.shape, np.uint8)
    black, white = np.percentile(finite, [1, 99])
    scaled = (np.nan_to_num(plane) - black) / (white - black if white > black else 1.0)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
