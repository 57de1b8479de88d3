"""napari readers: every format of `napari_mamba.io`, each channel a layer in its place, label maps as labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from napari_mamba.errors import ChoiceError, NapariMambaError
from napari_mamba.ui.context_menu import add_to_layer_menu
from napari_mamba.ui.files.layer_data import LayerData, layers_of
from napari_mamba.ui.files.pyramid import coarser, opened

Paths = str | Sequence[str]
NOTHING: list[Any] = [(None,)]
"""napari's word for "read, and there is no layer of it": the user cancelled, or the layer is there already."""
DROPPED_TOGETHER_S = 3.0
"""Files of one DICOM series that follow each other within this time were dropped together: they are one layer."""
_OF_FILE = ("SeriesInstanceUID", "NumberOfFrames", "SOPClassUID")
_NO_DICOM = (".nii", ".nii.gz", ".nrrd", ".mha", ".tif", ".tiff")


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """The reader for a path, or None where `napari_mamba.io` does not know its ending.

    napari's own words for a file that is refused say nothing of the reason, so that a folder, or a file without an
    ending, is taken and read to the sentence that says what it is not.

    Parameters
    ----------
    path : str or list of str
        A file, a folder of DICOM series or of image files, an OME-Zarr store; a list where files are opened as a
        stack: the channels of one image, or the slices of one DICOM series.
    """
    from napari_mamba import io

    paths = [path] if isinstance(path, str) else list(path)
    if len(paths) == 1 and (Path(paths[0]).is_dir() or _says_nothing(Path(paths[0]))):
        return read_layers
    return read_layers if paths and all(map(io.can_read, paths)) else None


def read_layers(path: Paths) -> list[LayerData]:
    """Layers of a file, a folder or a store; of several files, which are channels on one grid.

    Where a place holds several images and a window is open, a dialog asks which.

    Raises
    ------
    InputError
        As `napari_mamba.io.read` does; napari shows it as a notification.
    """
    add_to_layer_menu()
    paths = [path] if isinstance(path, str) else list(path)
    planned = radiotherapy_layers(paths[0]) if len(paths) == 1 else None
    if planned is not None:
        return planned
    if len(paths) == 1 and _DROPPED.again(paths[0]):
        return NOTHING
    began = monotonic()
    try:
        return _read(paths)
    finally:
        _DROPPED.done(monotonic() - began)


def _read(paths: list[str]) -> list[LayerData]:
    try:
        volume = opened(paths)
    except ChoiceError:
        layers = _ask(paths)
        if layers is None:
            raise
        return layers
    except NapariMambaError as error:
        if len(paths) == 1 and Path(paths[0]).is_dir():
            layers = _ask(paths)
            if layers is not None:
                return layers
        raise without_folders(error, paths) from error
    from napari_mamba import io

    files = io.series_files(volume.header)
    if len(files) == 1 and (doses := radiotherapy_layers(str(files[0]))):  # a folder that holds a dose
        return [*doses, *_drawn_in(paths)]
    if len(paths) == 1 and io.OVERLAP in io.doubts(volume):
        from napari_mamba.ui.radiotherapy.opening import overlapping

        return overlapping(Path(files[0] if files else paths[0]), volume)
    levels = coarser(volume, paths[0]) if len(paths) == 1 else []
    return [*layers_of(volume, str(paths[0]), levels), *_drawn_in(paths)]


def _drawn_in(paths: list[str]) -> list[LayerData]:
    """Layers of the RTSTRUCT files that lie in a folder beside the slices of its one series."""
    from napari_mamba.ui.files.series_choice import structure_sets

    folder = Path(paths[0])
    if len(paths) > 1 or not folder.is_dir() or folder.name.lower().endswith(".zarr"):
        return []
    return [
        layer
        for entry in structure_sets(folder, deep=False)
        for layer in radiotherapy_layers(str(entry.paths[0])) or ()
    ]


def radiotherapy_layers(path: str) -> list[LayerData] | None:
    """Layers of an RTSTRUCT or RTDOSE file; None for all else, which costs the reading of a header at most."""
    place = Path(path)
    if not place.is_file() or place.name.lower().endswith(_NO_DICOM):
        return None
    from napari_mamba.ui.radiotherapy.opening import layers_or_none

    return layers_or_none(path)


def without_folders(error: NapariMambaError, paths: Sequence[str]) -> NapariMambaError:
    """The same error with bare file names: napari's notification is one line, in which long paths hide the reason."""
    text = str(error)
    for path in sorted({str(Path(one).parent) for one in paths}, key=len, reverse=True):
        text = text.replace(path.rstrip("/\\") + os.sep, "")
    return error if text == str(error) else type(error)(text)


def _ask(paths: list[str]) -> list[LayerData] | None:
    """What the user chooses in a dialog; None where there is no window to ask in."""
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None or not any(one.isVisible() for one in QApplication.topLevelWidgets()):
        return None
    from napari_mamba.ui.files.series_dialog import ask_series

    chosen = ask_series(paths)
    return chosen or NOTHING


def _says_nothing(file: Path) -> bool:
    """Whether a file's name tells no format: it has no ending, or one of digits."""
    return file.is_file() and (not file.suffix or file.suffix[1:].isdigit())


class _Dropped:
    """Which DICOM series was read last: napari hands over the files of a drop one by one, and each reads the series."""

    def __init__(self) -> None:
        self._series = ""
        self._first = ""
        self._until = 0.0

    def again(self, path: str) -> bool:
        """Whether this is another file of the series that was read a moment ago."""
        series = _series_of(path)
        same = bool(series) and series == self._series and path != self._first and monotonic() < self._until
        if series and not same:
            self._series, self._first = series, path
        if not series:
            self._series = ""
        self.done()
        return same

    def done(self, seconds: float = 0.0) -> None:
        """A file was dealt with, in so many seconds: the next may follow from now on, as slow a computer as it is."""
        self._until = monotonic() + max(DROPPED_TOGETHER_S, 2 * seconds)


_DROPPED = _Dropped()


def _series_of(path: str) -> str:
    """The UID of a DICOM file's series; empty for all else, and for files that hold a volume of their own."""
    from napari_mamba.io.formats import dicom
    from napari_mamba.io.formats.dicom.headers import SEGMENTATIONS

    place = Path(path)
    if not place.is_file() or place.name.lower().endswith(_NO_DICOM):
        return ""
    try:
        if not dicom.is_dicom(place):
            return ""
        import pydicom

        header = pydicom.dcmread(place, stop_before_pixels=True, specific_tags=list(_OF_FILE))
        alone = int(header.get("NumberOfFrames") or 1) > 1 or str(header.get("SOPClassUID", "")) in SEGMENTATIONS
    except Exception:  # the reading itself says what is wrong with it
        return ""
    return "" if alone else str(header.get("SeriesInstanceUID", ""))
