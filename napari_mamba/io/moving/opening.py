"""Films from files: images with time, folders of pictures, several files, and what cameras write."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import ChoiceError, InputError
from napari_mamba.io import files
from napari_mamba.io.common.colour import NAMES, Colour, taken
from napari_mamba.io.common.explaining import explained
from napari_mamba.io.common.geometry import without_orientation
from napari_mamba.io.detection import stem
from napari_mamba.io.lazy.opening import open_volume
from napari_mamba.io.moving.film import MILLISECONDS, Film
from napari_mamba.volume import Volume

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".wmv", ".webm")
SINGLE = (".png", ".jpg", ".jpeg", ".bmp")
PICTURES = (*SINGLE, ".tif", ".tiff")
NIFTI, TIFF, DICOM = (".nii", ".nii.gz"), (".tif", ".tiff"), (".dcm", ".dicom", ".ima")


def open_film(paths: Sequence[Path | str], colour: Colour = None) -> Film:
    """Open a film: a file with a time axis, a video, a folder of pictures, or several files, one a frame.

    Parameters
    ----------
    paths : sequence of path
    colour : {"grey", "channels"}, optional
        How colour frames are taken.

    Returns
    -------
    Film
        Frames of an uncompressed NIfTI, of a TIFF, of a video and of single files stay on disk until they are asked
        for. Others are read whole, in their own type.

    Raises
    ------
    InputError
        If there is no film; one sentence says why.
    ChoiceError
        If it has colours and nothing is chosen.
    """
    given = [Path(path) for path in paths]
    if len(given) == 1 and given[0].is_dir():
        pictures = sorted((one for one in given[0].iterdir() if one.suffix.lower() in PICTURES), key=natural)
        given = pictures if len(pictures) > 1 else given
    if len(given) > 1:
        return Film(len(given), lambda t: files.read(given[t], colour=_of(given[t], colour)), name=given[0].parent.name)
    if not given[0].exists():
        raise InputError(f"{given[0]} does not exist: check the name")
    film = explained(given[0], lambda: _one(given[0], colour))
    return replace(film, get=lambda t: explained(given[0], lambda: film.get(t)))  # damage may be met later


def _one(path: Path, colour: Colour) -> Film:
    """The film in a file, or in a folder of DICOM."""
    name = path.name.lower()
    if name.endswith(VIDEOS):
        return _video(path, colour)
    if name.endswith(TIFF) and (film := _colour_tiff(path, colour)) is not None:
        return film
    if name.endswith(SINGLE):
        return Film(1, lambda t: files.read(path, colour=_of(path, colour)), name=path.stem)
    return _series(path, colour)


def natural(path: Path) -> list[Any]:
    """A key that sorts frame2 before frame10.

    >>> sorted([Path("f10.png"), Path("f2.png")], key=natural)[0].name
    'f2.png'
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name.lower())]


def _of(path: Path, colour: Colour) -> Colour:
    """The choice, where the file has colours at all."""
    if colour is None:
        return None
    try:
        files.read(path)
    except ChoiceError as error:
        return colour if error.argument == "colour" else None
    return None


def _series(path: Path, colour: Colour) -> Film:
    """An image of many volumes in one file, or a folder of DICOM."""
    try:
        volume = open_volume(path, frame="all")
    except ChoiceError as error:
        if error.argument != "colour" or colour is None:
            raise
        volume, per_frame = files.read(path, frame="all", colour=colour), 3 if colour == "channels" else 1
    else:
        per_frame = 1
    count = volume.channels // per_frame
    names = NAMES if per_frame == 3 else ()
    if count == 1 and volume.shape[0] > 1 and volume.units == "pixel":
        return _pages(volume, names)

    def get(t: int) -> Volume:
        data = np.asarray(volume.data[t * per_frame : (t + 1) * per_frame])
        return Volume(data, volume.affine, names, volume.units, volume.name)

    times, unit = _times(path, count)
    return Film(count, get, times, unit, volume.name)


def _pages(volume: Volume, names: tuple[str, ...]) -> Film:
    """Pages that nothing calls slices or frames, taken as frames."""
    grid = Volume(np.asarray(volume.data[:, :1]), volume.affine, names, volume.units, volume.name)
    note = "Nothing in the file says whether its pages are slices or frames: they were taken as frames."
    count = volume.shape[0]

    def get(t: int) -> Volume:
        return Volume(np.asarray(volume.data[:, t : t + 1]), grid.affine, names, grid.units, grid.name)

    return Film(count, get, name=volume.name, notes=(note,))


def _times(path: Path, count: int) -> tuple[np.ndarray | None, str]:
    """Times in ms, and the unit that the source gives them in."""
    name = path.name.lower()
    if name.endswith(NIFTI):
        return nifti_times(path, count)
    step = _tiff_step(path) if name.endswith(TIFF) else _dicom_step(path) if path.is_file() else None
    if step is None or not (np.isfinite(step) and step > 0):
        return None, "msec"
    return step * np.arange(count), "sec" if name.endswith(TIFF) else "msec"


def nifti_times(path: Path, count: int) -> tuple[np.ndarray | None, str]:
    """Times in ms of a NIfTI's fourth axis, and its unit; None where it does not say what a step is."""
    import nibabel

    header: Any = nibabel.load(path).header
    step, start = float(header["pixdim"][4]), float(header["toffset"])
    unit = header.get_xyzt_units()[1]
    if unit not in MILLISECONDS or not (np.isfinite(step) and step > 0 and np.isfinite(start)):
        return None, "msec"
    return MILLISECONDS[unit] * (start + step * np.arange(count)), unit


def _tiff_step(path: Path) -> float | None:
    """Milliseconds between frames: ImageJ's frame interval, in seconds."""
    import tifffile

    from napari_mamba.io.formats import tiff

    with tiff.logged(), tifffile.TiffFile(path) as file:
        interval = (file.imagej_metadata or {}).get("finterval")
    return 1000.0 * float(interval) if interval else None


def _dicom_step(path: Path) -> float | None:
    """Milliseconds between frames: FrameTime, or what the rate of the cine says."""
    if not path.name.lower().endswith(DICOM) and path.suffix:
        return None
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        tags = pydicom.dcmread(path, specific_tags=["FrameTime", "CineRate"], stop_before_pixels=True)
        if tags.get("FrameTime"):
            return float(tags.FrameTime)
        return 1000.0 / float(tags.CineRate) if tags.get("CineRate") else None
    except (InvalidDicomError, OSError, ValueError, ZeroDivisionError):
        return None


def _colour_tiff(path: Path, colour: Colour) -> Film | None:
    """A TIFF whose pages are colour frames, page by page; None where it is none."""
    import tifffile

    from napari_mamba.io.formats import tiff

    tiff.check_chain(path)
    with tiff.logged(), tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            return None
        series = file.series[0]
        axes, pages = series.axes, len(series.pages)
        if len(axes) != 4 or axes[0] not in "TQIZ_" or axes[1:] != "YXS" or pages != series.shape[0] or pages < 2:
            return None
        tiff.check_size(series, path.stat().st_size, path)
        shape = tuple(series.shape[1:])
    if colour is None:
        raise ChoiceError(
            f"{path} is a film in colour: choose whether to take it as grey or as three channels", "colour", ()
        )

    def get(t: int) -> Volume:
        with tiff.logged(), tifffile.TiffFile(path) as file:
            page: Any = file.series[0].pages[t]
            if page.shape != shape:
                raise InputError(f"{path} is damaged: its frame {t + 1} has another size than the first; copy it anew")
            return picture(np.asarray(page.asarray()), colour, stem(path))

    times, unit = _times(path, pages)
    return Film(pages, get, times, unit, stem(path))


def _video(path: Path, colour: Colour) -> Film:
    """A camera's video, decoded as its frames are asked for; going back begins anew."""
    try:
        import imageio.v3 as iio
        import imageio_ffmpeg
    except ImportError as error:
        raise InputError(
            f"{path} is a video, which needs another package: pip install imageio imageio-ffmpeg, or save it as a TIFF"
        ) from error
    if colour is None:
        raise ChoiceError(
            f"{path} is a video in colour: choose whether to take it as grey or as three channels", "colour", ()
        )

    def decoded(read: Callable[[], Any]) -> Any:
        return explained(path, read)

    rate = float(decoded(lambda: iio.immeta(path, plugin="FFMPEG")).get("fps") or 0)
    count = int(decoded(lambda: imageio_ffmpeg.count_frames_and_secs(str(path)))[0])
    reader = _Sequential(lambda: iio.imiter(path, plugin="FFMPEG"))
    times = 1000.0 / rate * np.arange(count) if rate > 0 else None
    return Film(count, lambda t: picture(decoded(lambda: reader[t]), colour, path.stem), times, "msec", path.stem)


class _Sequential:
    """Frames of an iterator by their number; one of before starts it again."""

    def __init__(self, start: Callable[[], Any]) -> None:
        self.start, self.iterator, self.next = start, iter(()), 0
        self.last: Any = None
        self.begun = False

    def __getitem__(self, t: int) -> np.ndarray:
        if self.begun and t == self.next - 1:
            return self.last
        if not self.begun or t < self.next:
            self.iterator, self.next, self.begun = iter(self.start()), 0, True
        while self.next <= t:
            self.last = next(self.iterator)
            self.next += 1
        return self.last


def picture(pixels: np.ndarray, colour: Colour, name: str) -> Volume:
    """A colour picture (Y, X, 3 or 4) as a volume of one slice, of units "pixel"."""
    data = np.ascontiguousarray(taken(np.moveaxis(pixels, -1, 0)[:, np.newaxis], colour))
    return Volume(data, without_orientation(np.ones(3)), NAMES if colour == "channels" else (), "pixel", name)
