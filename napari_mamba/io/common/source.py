"""What a file says beside its voxels and grid: `Volume.header`, which no other room looks into."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_mamba.volume import Volume

OVERLAP = "Segments of the file overlap: in the label map the later one lies on top."
"""The doubt of a label map that was made of segments which overlap (`napari_mamba.io.read_segments` has them whole)."""


@dataclass(frozen=True)
class LabelEntry:
    """A label's name and colour as a file gives them; the names of `bundles.LabelClass`'s fields."""

    index: int
    name: str
    color: str = ""
    code: str = ""


@dataclass(frozen=True)
class ShownChannel:
    """How a file has a channel shown: a colour such as "#00ff00", the values that are black and bright, and whether."""

    color: str
    window: tuple[float, float] | None = None
    visible: bool = True


@dataclass(frozen=True)
class Source:
    """A source's own header.

    Attributes
    ----------
    classes : tuple of LabelEntry
        Names that the file has for its values.
    says_labels : bool
        Whether the file says of itself that it is a label map.
    doubts : tuple of str
        What had to be assumed about its place, as sentences for people.
    nifti : object
        Its fields, where it is a NIfTI: see `napari_mamba.io.formats.nifti.header.SourceHeader`.
    dicom : tuple of Path
        The files of a DICOM series in the order of the slices.
    slice_thickness : float or None
        How thick the slices along the first axis are, in mm, where the file says so; their distance is the grid's.
    acquisition : str
        "2D" where slices were excited one by one, "3D" where they were sampled in k-space; "" where the file says
        nothing.
    shown : tuple of ShownChannel
        How the file has each channel shown; empty where it says nothing.
    values : int
        `id` of the values that `classes` are about: other values on the same grid have other classes.
    """

    classes: tuple[LabelEntry, ...] = ()
    says_labels: bool = False
    doubts: tuple[str, ...] = ()
    nifti: Any = field(default=None, repr=False)
    dicom: tuple[Path, ...] = ()
    slice_thickness: float | None = None
    acquisition: str = ""
    shown: tuple[ShownChannel, ...] = ()
    values: int = 0


def of(volume: Volume) -> Source:
    """The source of a volume, an empty one where it was not read from a file."""
    return volume.header if isinstance(volume.header, Source) else Source()


def attached(volume: Volume, source: Source) -> Volume:
    """The volume with its source."""
    return replace(volume, header=replace(source, values=id(volume.data)))


def classes_of(volume: Volume) -> tuple[LabelEntry, ...]:
    """Names and colours that the volume's own file has for its values, empty where it has none.

    They are about the values that were read: a result on the same grid has none.
    """
    source = of(volume)
    return source.classes if source.values == id(volume.data) else ()


def series_files(header: Any) -> tuple[Path, ...]:
    """The files of the DICOM series that a `Volume.header` speaks of, in the order of the slices."""
    return header.dicom if isinstance(header, Source) else ()


def slice_thickness(volume: Volume) -> float | None:
    """How thick the slices are, in mm, which is not how far apart; None where the volume's file says nothing."""
    return of(volume).slice_thickness


def acquisition(volume: Volume) -> str:
    """ "2D" or "3D" MR; "" where the volume's file says nothing."""
    return of(volume).acquisition


def shown_channels(volume: Volume) -> tuple[ShownChannel, ...]:
    """How the volume's file has each of its channels shown; empty where it says nothing."""
    found = of(volume).shown
    return found if len(found) == volume.channels else ()


def doubts(volume: Volume) -> list[str]:
    """What had to be assumed when the volume was read, one sentence each; for warnings."""
    return list(of(volume).doubts)
