"""NRRD and MetaImage written by SimpleITK, whose geometry is LPS and whose index order is (x, y, z)."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from napari_mamba.io.common.geometry import from_itk, to_itk
from napari_mamba.io.labels import naming
from napari_mamba.io.labels.storing import storable
from napari_mamba.volume import Volume

_lock = threading.Lock()


def simpleitk() -> ModuleType:
    """SimpleITK, told not to print warnings."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what C libraries inside SimpleITK print (MetaIO, libtiff) off the terminal; errors come as exceptions."""
    with _lock:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, AttributeError, ValueError):  # no stderr: a windowed program
            yield
            return
        with tempfile.TemporaryFile() as sink:
            try:
                os.dup2(sink.fileno(), 2)
                yield
            finally:
                os.dup2(kept, 2)
                os.close(kept)


def affine_of(image: Any) -> np.ndarray:
    """A volume's affine (4, 4) of a SimpleITK image."""
    dimension = image.GetDimension()
    spacing, origin = np.ones(3), np.zeros(3)
    direction = np.eye(3)
    size = min(dimension, 3)
    spacing[:size] = image.GetSpacing()[:size]
    origin[:size] = image.GetOrigin()[:size]
    direction[:size, :size] = np.reshape(image.GetDirection(), (dimension, dimension))[:size, :size]
    return from_itk(spacing, origin, direction)


def place(image: Any, affine: np.ndarray) -> None:
    """Give a SimpleITK image the spacing, origin and direction of a volume's affine."""
    spacing, origin, direction = to_itk(affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())


def write(volume: Volume, path: Path, classes: Sequence[naming.Class] = ()) -> None:
    """Write NRRD, MHA or MHD, compressed, with 3D Slicer's segment fields for the classes, and channels' names in NRRD.

    Raises
    ------
    RuntimeError
        From SimpleITK, if it could not write, for instance on a full disk.
    """
    itk = simpleitk()
    array = storable(volume.data, classes)
    channels = array.shape[0]
    image = itk.GetImageFromArray(np.moveaxis(array, 0, -1) if channels > 1 else array[0], isVector=channels > 1)
    place(image, volume.affine)
    fields = naming.segment_fields(classes, volume.shape) if classes else {}
    plain = path.suffix.lower() != ".nrrd"
    if channels > 1 and not plain:
        fields |= naming.channel_fields(volume.channel_names)
    for key, text in fields.items():
        image.SetMetaData(key, _ascii(text) if plain else text)
    with quiet():
        itk.WriteImage(image, str(path), True)
        if not plain:  # NrrdIO does not tell when the disk fills while it closes the file; its checksum does
            itk.ReadImage(str(path))


def _ascii(text: str) -> str:
    """MetaImage drops a value that is not ASCII: letters lose their accents, other scripts become escapes."""
    import unicodedata

    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or ascii(text)[1:-1]
