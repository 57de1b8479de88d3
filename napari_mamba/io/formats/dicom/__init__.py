"""DICOM: the series in a folder, on a CD or among files; enhanced multi-frame, mosaics, segmentations.

The geometry comes from ImagePositionPatient and ImageOrientationPatient alone (DICOM PS3.3, C.7.6.2), never from
SliceThickness, which is no distance between slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_mamba.errors import ChoiceError, InputError, Option
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.formats.dicom.files import Found, found_beside, found_in, is_dicom, is_folder
from napari_mamba.io.formats.dicom.headers import Slice
from napari_mamba.io.formats.dicom.stack import assembled
from napari_mamba.volume import Volume

__all__ = ["is_dicom", "is_folder", "read", "read_files", "write"]


def read(
    path: Path, series: str | int | None = None, frame: _frames.Frame = None, colour: _colour.Colour = None
) -> Volume:
    """Read the DICOM series in a folder, or the series that a file belongs to.

    Parameters
    ----------
    path : Path
        A folder (if it holds no DICOM image itself, those below it are searched), a DICOMDIR, or one file: its series
        in its folder.
    series : str or int, optional
        SeriesInstanceUID or series number, where a folder holds several.
    frame : int or "all", optional
        Which of several time points, echoes or diffusion weights; "all" takes each as a channel.
    colour : {"grey", "channels"}, optional
        How a colour series is taken.

    Returns
    -------
    Volume
        One channel; values rescaled by RescaleSlope and RescaleIntercept (CT: Hounsfield units). The affine passes
        through the first and last slice's ImagePositionPatient, so a tilted gantry is kept as a shear.

    Raises
    ------
    ChoiceError
        If there are several series, volumes or colours and none is chosen.
    InputError
        If slices are missing, doubled, unevenly spaced or of different orientation (a localizer), or a file is damaged.

    Examples
    --------
    >>> read(Path("study/ct"), series=2).shape  # doctest: +SKIP
    (24, 512, 512)
    """
    if path.is_dir() or path.name.upper() == "DICOMDIR":
        folder = path if path.is_dir() else path.parent
        return _read(found_in(folder), series, folder, frame, colour)
    own, found = found_beside(path)
    if series is not None and str(series) not in (own.series, own.number):
        raise InputError(f"{path} belongs to the series {own.number}, not to {series}: leave series out")
    return _read(found, own.series, path, frame, colour)


def read_files(
    paths: Sequence[Path],
    series: str | int | None = None,
    frame: _frames.Frame = None,
    colour: _colour.Colour = None,
) -> Volume:
    """Read exactly these files as one series; parameters as those of `read`."""
    folder = paths[0].parent
    return _read(found_in(folder, paths), series, folder, frame, colour)


def _read(found: Found, series: str | int | None, source: Path, frame: _frames.Frame, colour: _colour.Colour) -> Volume:
    members = _chosen(found, series, source)
    found.check_whole(members)
    if members[0].is_segmentation:
        from napari_mamba.io.formats.dicom import segmentation

        return segmentation.read(members, source)
    return assembled(members, source, frame, colour)


def _chosen(found: Found, series: str | int | None, source: Path) -> list[Slice]:
    """The slices of one series; `ChoiceError` with the list of them if it is not clear which."""
    by_series = found.by_series()
    wanted = [
        members for uid, members in by_series.items() if series is None or str(series) in (uid, members[0].number)
    ]
    if len(wanted) == 1:
        return wanted[0]
    options = [Option(uid, series_label(members)) for uid, members in sorted(by_series.items())]
    listing = "; ".join(option.label for option in options[:6]) + ("; …" if len(options) > 6 else "")
    if not wanted:
        raise InputError(f"{source} has no series {series}, choose one of: {listing}")
    raise ChoiceError(
        f"{source} holds {len(wanted)} DICOM series, choose one by its number or UID: {listing}", "series", options
    )


def series_label(members: Sequence[Slice]) -> str:
    """A series in a list: number, modality, description, files."""
    files = len({entry.path for entry in members})
    name = members[0].label[:60] or members[0].series
    return f"{name} ({files} file{'s' if files > 1 else ''}, UID {members[0].series})"


def write(volume: Volume, path: Path, classes: Sequence[object] = ()) -> None:
    """Write a label map as DICOM SEG; see `segmentation.write`."""
    from napari_mamba.io.formats.dicom import segmentation

    segmentation.write(volume, path, classes)  # type: ignore[arg-type]
