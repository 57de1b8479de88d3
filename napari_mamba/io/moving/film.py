"""Frames over time, of which only those that are asked for are in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

MILLISECONDS = {"sec": 1000.0, "msec": 1.0, "usec": 0.001}
"""Of units of time, in NIfTI's words."""


@dataclass(frozen=True, eq=False)
class Film:
    """Images or volumes over time.

    Attributes
    ----------
    count : int
        Frames.
    get : callable
        ``get(t)`` is frame t, a `Volume` (C, Z, Y, X); asked for in any order, mostly ascending.
    times : ndarray, shape (count,), or None
        In ms; None where the source does not say.
    time_unit : {"msec", "sec", "usec"}
        Of the source; `times` are in ms whatever it says.
    name : str
    notes : tuple of str
        What a user should know about the source.

    Examples
    --------
    >>> still = Volume(np.zeros((1, 1, 4, 4)))
    >>> Film(3, lambda t: still).frame(2).shape
    (1, 4, 4)
    """

    count: int
    get: Callable[[int], Volume]
    times: np.ndarray | None = None
    time_unit: str = "msec"
    name: str = ""
    notes: tuple[str, ...] = field(default=())

    def frame(self, t: int) -> Volume:
        """Frame t; raises `InputError` where it differs in size from the first one."""
        if not 0 <= t < self.count:
            raise IndexError(t)
        volume = self.get(t)
        first = self._first()
        if (volume.channels, *volume.shape) != first:
            raise InputError(
                f"frame {t + 1} has {_said((volume.channels, *volume.shape))} and the first one {_said(first)}: give "
                "frames of one size"
            )
        return volume

    def _first(self) -> tuple[int, ...]:
        known = self.__dict__.get("_size")
        if known is None:
            volume = self.get(0)
            known = (volume.channels, *volume.shape)
            object.__setattr__(self, "_size", known)
        return known


def of_array(data: np.ndarray, grid: Volume, times: np.ndarray | None = None, time_unit: str = "msec") -> Film:
    """An array (T, C, Z, Y, X), in memory or not, on the grid of a volume."""
    names = grid.channel_names if len(grid.channel_names) == data.shape[1] else ()

    def get(t: int) -> Volume:
        return Volume(np.asarray(data[t]), grid.affine, names, grid.units, grid.name)

    return Film(len(data), get, times, time_unit, grid.name)


def check_film(film: Film) -> None:
    """Raise `InputError` where a film has one frame, its times do not rise, or its second frame is of another size."""
    if film.count < 2:
        raise InputError("a film needs two frames or more, this is one image: run it without time")
    if film.times is not None and (len(film.times) != film.count or not (np.diff(film.times) > 0).all()):
        raise InputError("the frames are out of order, for their times do not rise: sort them by time")
    film.frame(1)  # another size is told now, not after the first frame was run


def _said(size: tuple[int, ...]) -> str:
    channels, *sides = size
    return f"{'x'.join(map(str, sides))} voxels in {channels} channel{'s' if channels > 1 else ''}"
