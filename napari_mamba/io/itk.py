"""NRRD, MetaImage and 2D pictures through SimpleITK, whose geometry is LPS and whose index order is (x, y, z)."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io import _frames, labels
from napari_mamba.io._geometry import from_itk, millimetres, to_itk, without_orientation
from napari_mamba.volume import Volume

_lock = threading.Lock()
_COLOUR_KINDS = {"rgb-color", "rgba-color", "hsv-color", "xyz-color"}
_CHANNEL_KINDS = {"list", "vector", "point", "normal", "none", "???", "2-vector", "3-vector", "4-vector"}
_SERIES_KEYS = re.compile(r"axis \d+ index|multivolume\.|dwmri_")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


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


def read(path: Path, frame: _frames.Frame = None) -> Volume:
    """Read NRRD, MetaImage or a grey 2D picture.

    Parameters
    ----------
    path : Path
    frame : int or "all", optional
        Which volume of a series; "all" takes each as a channel.

    Returns
    -------
    Volume
        In the file's own type. The values of an NRRD "list" or "vector" axis and of a MetaImage with several
        `ElementNumberOfChannels` are channels. `units` is "pixel" where the header has no spacing.

    Raises
    ------
    InputError
        If the file is damaged, holds colours, or holds several volumes and no frame is named.
    """
    header = _header(path)
    series = _check_kinds(header, path)
    itk = simpleitk()
    try:
        with quiet():
            image = itk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read, it is truncated, damaged or of another format") from error
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} holds complex numbers: convert them to magnitudes first")
    data = _channels_first(itk.GetArrayFromImage(image), image, path)
    if series or image.GetDimension() == 4:
        data = data[_frames.choose(data.shape[0], frame, path)]
    elif frame is not None:
        _frames.choose(1, frame, path)
    scale = _scale(header, path)
    if scale is None:
        return Volume(data, without_orientation(np.ones(3)), units="pixel")
    affine = affine_of(image)
    affine[:3] *= scale
    return Volume(data, affine, labels.channel_names(header, len(data)))


def _header(path: Path) -> dict[str, str]:
    """The fields of a text header, keys in lower case; empty for a picture."""
    with open(path, "rb") as file:
        start = file.read(1 << 20)
    if not start:
        raise InputError(f"{path} is empty: check where it came from")
    if path.suffix.lower() in _PICTURES:
        return {}
    if start.startswith(b"NRRD"):
        lines = start.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "replace").splitlines()
        pairs = [re.split(r":=|: ", line, maxsplit=1) for line in lines if not line.startswith("#")]
    else:
        lines = re.split(rb"ElementDataFile\s*=", start, maxsplit=1)[0].decode("utf-8", "replace").splitlines()
        pairs = [line.split("=", 1) for line in lines]
    fields = {pair[0].strip().lower(): pair[1].strip() for pair in pairs if len(pair) == 2}
    if "dimension" not in fields and "ndims" not in fields:
        raise InputError(f"{path} is no NRRD or MetaImage file, whatever its name says: check where it came from")
    return fields


def _check_kinds(header: dict[str, str], path: Path) -> bool:
    """Whether the values of a voxel are a series of volumes; `InputError` if the axes are not a volume's."""
    kinds = [kind for kind in header.get("kinds", "").lower().split() if kind not in ("domain", "space")]
    if any(kind in _COLOUR_KINDS for kind in kinds):
        raise InputError(f"{path} is a colour image: convert it to grey, or save each colour as a file of its own")
    if "time" in kinds:
        count = header["sizes"].split()[header["kinds"].lower().split().index("time")]
        raise InputError(
            f"{path} holds {count} volumes along its time axis: save the one you want as a file of its own"
        )
    other = [kind for kind in kinds if kind not in _CHANNEL_KINDS]
    if len(kinds) > 1 or other:
        raise InputError(f"{path} has axes of the kind {', '.join(kinds)}: save it as one volume with three space axes")
    named = header.get("axis 0 index type") == "text"  # a sequence over names, not over time: channels
    return bool(kinds) and not named and any(_SERIES_KEYS.match(key) for key in header)


def _channels_first(array: np.ndarray, image: Any, path: Path) -> np.ndarray:
    """Values as (C, Z, Y, X); those of a 4D image as (T, Z, Y, X)."""
    dimension, values = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if values in (3, 4) and (array.dtype == np.uint8 or path.suffix.lower() in _PICTURES):
        raise InputError(f"{path} is a colour image: convert it to grey, or save each colour as a file of its own")
    if dimension == 4 and values == 1:
        return array
    if dimension > 3:
        raise InputError(f"{path} has {dimension} axes and {values} values a voxel: save one volume of it")
    array = array if values > 1 else array[..., np.newaxis]
    array = array[np.newaxis] if dimension == 2 else array
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def _scale(header: dict[str, str], path: Path) -> float | None:
    """Millimetres in the header's unit, or None where it gives no spacing."""
    if not any(key in header for key in ("space directions", "spacings", "elementspacing", "elementsize")):
        return None
    units = set(re.findall(r'"([^"]*)"', header.get("space units", "")))
    if len(units) > 1:
        raise InputError(f"{path} has different units along its axes ({', '.join(sorted(units))}): convert it to mm")
    return millimetres(units.pop()) or 1.0 if units else 1.0


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


def write(volume: Volume, path: Path, classes: Sequence[labels.Class] = ()) -> None:
    """Write NRRD, MHA or MHD, compressed, with 3D Slicer's segment fields for the classes, and channels' names in NRRD.

    Raises
    ------
    RuntimeError
        From SimpleITK, if it could not write, for instance on a full disk.
    """
    itk = simpleitk()
    array = labels.storable(volume.data, classes)
    channels = array.shape[0]
    image = itk.GetImageFromArray(np.moveaxis(array, 0, -1) if channels > 1 else array[0], isVector=channels > 1)
    place(image, volume.affine)
    fields = labels.segment_fields(classes, volume.shape) if classes else {}
    if channels > 1 and path.suffix.lower() == ".nrrd":
        fields |= labels.channel_fields(volume.channel_names)
    plain = path.suffix.lower() != ".nrrd"
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
