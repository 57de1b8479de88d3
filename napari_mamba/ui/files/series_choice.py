"""Which of several images in one place are opened, and how: a plain model behind the dialog. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba.errors import Option
from napari_mamba.ui.files.layer_data import LayerData, colour_data, layers_of, series_data
from napari_mamba.ui.files.pyramid import coarser

if TYPE_CHECKING:
    from napari_mamba.io import SeriesInfo

SLIDER = "slider"
"""A series of volumes as one layer with a slider."""
COLOUR = "colour"
"""A colour image in its colours."""
_MOST_FILES = 5000


@dataclass
class SeriesChoice:
    """The images in a place, those to be opened, and how series and colours are taken.

    Parameters
    ----------
    entries : sequence of SeriesInfo
        From `io.list_series`.
    """

    entries: Sequence[SeriesInfo]
    chosen: list[int] = field(default_factory=list)
    frames: dict[int, Any] = field(default_factory=dict)
    colours: dict[int, str] = field(default_factory=dict)
    images: dict[int, Any] = field(default_factory=dict)
    changed: ClassVar[Signal] = Signal()

    def __post_init__(self) -> None:
        readable = [i for i, entry in enumerate(self.entries) if not entry.problem]
        if not self.chosen and readable:
            self.chosen = [readable[0]]  # one image is what most want; the rest is a click away

    def choose(self, chosen: Sequence[int]) -> None:
        """Open these; those that cannot be read are left out."""
        self.chosen = [i for i in chosen if not self.entries[i].problem]
        self.changed.emit()

    def frame_choices(self, index: int) -> list[tuple[str, Any]]:
        """How a series of volumes can be taken; empty where there is one volume."""
        entry = self.entries[index]
        if entry.frames < 2:
            return []
        moments = entry.moments or tuple(Option(i, f"volume {i}") for i in range(entry.frames))
        return [(f"All {entry.frames}, with a slider", SLIDER), *((m.label.capitalize(), m.value) for m in moments)]

    def colour_choices(self, index: int) -> list[tuple[str, str]]:
        """How a colour image can be taken; empty for a grey one."""
        if not self.entries[index].colour:
            return []
        return [("In colour", COLOUR), ("As grey values", "grey"), ("Red, green and blue as layers", "channels")]

    def image_choices(self, index: int) -> list[tuple[str, Any]]:
        """Which image of a file that holds several."""
        return [(option.label, option.value) for option in self.entries[index].images]

    def read(self) -> list[LayerData]:
        """Layers of what is chosen.

        Raises
        ------
        InputError
            If one cannot be read.
        """
        return [layer for index in self.chosen for layer in self._read(index)]

    def _read(self, index: int) -> list[LayerData]:
        entry, path = self.entries[index], str(self.entries[index].paths[0])
        if entry.modality in ("RTDOSE", "RTSTRUCT"):
            from napari_mamba.ui.radiotherapy.opening import open_file, open_sum

            return open_file(path, entry.modality) if len(entry.paths) == 1 else open_sum(entry.paths)
        frame = self.frames.get(index, SLIDER) if entry.frames > 1 else None
        colour = self.colours.get(index, COLOUR) if entry.colour else None
        images = self.image_choices(index)
        series = self.images.get(index, images[0][1]) if images else None
        volume = entry.read(
            frame="all" if frame == SLIDER else frame,
            colour="channels" if colour == COLOUR else colour,  # type: ignore[arg-type]
            series=series,
        )
        if colour == COLOUR:
            return colour_data(volume, path)
        if frame == SLIDER:
            return series_data(volume, path)
        levels = coarser(volume, path, series=series, frame=frame) if len(entry.paths) == 1 else []
        return layers_of(volume, path, levels)


def structure_sets(place: Path, deep: bool = True) -> list[SeriesInfo]:
    """The RTSTRUCT files in a folder, which hold no image and are offered beside those that are there.

    With `deep` those in folders below as well, of the first thousands of files.
    """
    from napari_mamba.io import SeriesInfo
    from napari_mamba.radiotherapy.sources import modality

    if not place.is_dir():
        return []
    entries = islice(place.rglob("*") if deep else place.iterdir(), _MOST_FILES)
    files = sorted(file for file in entries if _may_be_dicom(file) and file.is_file())
    found = [file for file in files if modality(file) == "RTSTRUCT"]
    return [SeriesInfo((file,), "dicom", f"RTSTRUCT {file.name}", modality="RTSTRUCT") for file in found]


def _may_be_dicom(file: Path) -> bool:
    known = file.suffix.lower() in ("", ".dcm", ".dicom", ".ima") or file.suffix[1:].isdigit()
    return known and not file.name.startswith(".")


def describe(entry: SeriesInfo) -> str:
    """An image in a line: its size, spacing, volumes and kind.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_mamba.io import SeriesInfo
    >>> describe(SeriesInfo((Path("a.nii"),), "nifti", "a.nii", shape=(20, 256, 256), spacing=(5.0, 0.9, 0.9)))
    '256 x 256 x 20 voxels of 0.9 x 0.9 x 5 mm'
    """
    if entry.problem:
        return entry.problem
    if entry.modality == "RTSTRUCT":
        return "contours of structures"
    parts = []
    if entry.shape is not None:
        parts.append(f"{' x '.join(str(n) for n in reversed(entry.shape))} voxels")
        if entry.spacing is not None and entry.units == "mm":
            parts[-1] += f" of {' x '.join(f'{side:.3g}' for side in reversed(entry.spacing))} mm"
    if entry.frames > 1:
        parts.append(f"{entry.frames} volumes")
    if entry.colour:
        parts.append("colour")
    if entry.labels:
        parts.append("labels")
    return ", ".join(parts)
