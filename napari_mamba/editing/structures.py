"""A label map and what several steps ask of it, each found once: runs of equal labels, counts, middles, parts.

A label map is smooth: along the last axis it has some thirty times fewer runs of equal labels than voxels. What is
counted over runs costs that much less, and is the same integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from napari_mamba.editing.parts import components, relabelled


@dataclass(frozen=True)
class RunLengths:
    """Runs of equal labels along the last axis: run-length encoding.

    Attributes
    ----------
    shape : tuple of int
        Of the label map.
    starts : ndarray of int, shape (R,)
        Each run's first voxel, in the flat label map.
    lengths : ndarray of int, shape (R,)
        Voxels.
    labels : ndarray, shape (R,)

    Examples
    --------
    >>> runs = RunLengths.of(np.array([[7, 7, 0, 9], [9, 9, 9, 9]]))
    >>> runs.starts.tolist(), runs.lengths.tolist(), runs.labels.tolist()
    ([0, 3, 4], [2, 1, 4], [7, 9, 9])
    """

    shape: tuple[int, ...]
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, background: bool = False) -> RunLengths:
        """The runs of a label map, in the order of its voxels; those of 0 only with `background`."""
        flat = labels.reshape(-1)
        first: np.ndarray = np.empty(flat.size, bool)
        np.not_equal(flat[1:], flat[:-1], out=first[1:])
        first.reshape(-1, labels.shape[-1])[:, 0] = True
        starts = np.flatnonzero(first)
        lengths, values = np.diff(starts, append=flat.size), flat[starts]
        every = cls(labels.shape, starts, lengths, values)
        return every if background else every.only(values != 0)

    def only(self, which: np.ndarray) -> RunLengths:
        """Some of the runs, by a mask (R,)."""
        return RunLengths(self.shape, self.starts[which], self.lengths[which], self.labels[which])

    def total(self, numbers: np.ndarray, least: int = 0) -> np.ndarray:
        """Voxels of the runs that have each number from 0; `numbers` (R,)."""
        return np.bincount(numbers, self.lengths, least).astype(np.int64)

    @property
    def voxels(self) -> np.ndarray:
        """Places of all voxels in the flat label map."""
        ends = np.cumsum(self.lengths)
        return np.repeat(self.starts - ends + self.lengths, self.lengths) + np.arange(ends[-1] if len(ends) else 0)


class Structures:
    """A label map, and what is known of it.

    Parameters
    ----------
    labels : ndarray of unsigned int, shape (Z, Y, X)
        C-contiguous; not to be changed from now on.
    background : bool
        0 is asked for as any other label; without, it is only counted.
    device : str
        Where runs and their parts are looked for: a GPU as PyTorch names it, or "" for the processor. The same numbers.

    Examples
    --------
    >>> seen = Structures(np.array([[[1, 1, 0, 2]]], np.uint8))
    >>> seen.counts(4).tolist(), seen.centres([2, 1]).tolist()
    ([1, 2, 1, 0], [[0.0, 0.0, 3.0], [0.0, 0.0, 0.5]])
    """

    def __init__(self, labels: np.ndarray, background: bool = False, device: str = "") -> None:
        self.labels, self.background, self.device = labels, background, device

    @cached_property
    def runs(self) -> RunLengths:
        """Its runs."""
        if not self.device:
            return RunLengths.of(self.labels, self.background)
        starts, lengths, labels = (one.cpu().numpy() for one in self._on_device)
        return RunLengths(self.labels.shape, starts, lengths, labels.astype(self.labels.dtype))

    @cached_property
    def _on_device(self) -> tuple[Any, Any, Any]:
        from napari_mamba.editing.runs_on_device import runs_on

        return runs_on(self.labels, self.background, self.device)

    def _components(self, among: np.ndarray | None = None) -> np.ndarray:
        """Each run's part on the device: of runs of one label, or of those by a mask (R,), whatever their labels."""
        import torch

        from napari_mamba.editing.runs_on_device import run_components

        starts, lengths, labels = self._on_device
        keys = labels if among is None else torch.from_numpy(among).to(labels.device)
        return run_components(starts, lengths, keys, self.labels.shape).cpu().numpy()

    def counts(self, least: int = 1) -> np.ndarray:
        """How many voxels each label from 0 has, of `least` labels at least."""
        return np.pad(self._counts, (0, max(least - len(self._counts), 0)))

    @cached_property
    def _counts(self) -> np.ndarray:
        counts = self.runs.total(self.runs.labels, 1)
        counts[0] += self.labels.size - counts.sum()
        return counts

    def centres(self, wanted: Sequence[int]) -> np.ndarray:
        """The middles (z, y, x) of labels that are there, in voxels, (len(wanted), 3)."""
        runs = self.runs
        z, y, x = np.unravel_index(runs.starts, runs.shape)
        twice = (2 * z, 2 * y, 2 * x + runs.lengths - 1)
        sums = [np.bincount(runs.labels, one * runs.lengths) / 2 for one in twice]
        return np.stack(sums, axis=1)[list(wanted)] / self.counts()[list(wanted), None]

    def are(self, chosen: Sequence[int]) -> np.ndarray:
        """Which runs carry one of these labels, bool (R,)."""
        return np.isin(self.runs.labels, chosen)

    def pieces(self, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Connected pieces of some labels taken as one structure.

        Returns
        -------
        numbers : ndarray of int, shape (R,)
            Each run's piece, in the order in which they are met; 0 of those of other labels.
        sizes : ndarray of int, shape (P + 1,)
            Voxels of each piece; 0 of the first.
        """
        among = self.are(chosen)
        if self.device:
            numbers = self._components(among)
            return numbers, _sizes(self.runs, numbers)
        mask = self.labels != 0 if among.all() and not self.background else np.isin(self.labels, chosen)
        numbers = components(mask).reshape(-1)[self.runs.starts]
        numbers[~among] = 0
        return numbers, _sizes(self.runs, numbers)

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Connected parts of every label: each run's (R,), their voxels (P + 1,), the first 0, and labels (P + 1,)."""
        numbers = self._components() if self.device else components(self.labels).reshape(-1)[self.runs.starts]
        sizes = _sizes(self.runs, numbers)
        owners = np.zeros(len(sizes), self.labels.dtype)
        owners[numbers] = self.runs.labels
        return numbers, sizes, owners

    def without(self, gone: np.ndarray) -> Structures:
        """The same, runs by a mask (R,) made background."""
        left = Structures(self.labels.copy(), self.background, self.device)
        left.labels.reshape(-1)[self.runs.only(gone).voxels] = 0
        if not self.background and not self.device:
            left.runs = self.runs.only(~gone)
        return left

    def relabelled(self, stray: np.ndarray, spacing: Sequence[float]) -> Structures:
        """The same, runs by a mask (R,) given the label nearest to them; `spacing` (z, y, x) in mm."""
        return Structures(relabelled(self.labels, self.runs.only(stray).voxels, spacing), self.background, self.device)


def _sizes(runs: RunLengths, numbers: np.ndarray) -> np.ndarray:
    sizes = runs.total(numbers, 1)
    sizes[0] = 0
    return sizes
