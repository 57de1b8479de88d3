"""Random pieces of the training scans, on the device that trains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.recipes.restore.data import FULL, Scan

Size = tuple[int, int, int]


class PatchSampler:
    """Pieces of scans, picked and turned at random.

    Parameters
    ----------
    scans : sequence of Scan
    device : torch.device
        Where the scans are kept, as bytes.
    """

    def __init__(self, scans: Sequence[Scan], device: torch.device) -> None:
        self.scans = list(scans)
        self.device = device
        self._data = [torch.from_numpy(np.ascontiguousarray(scan.data)).to(device) for scan in scans]
        people = [scan.person for scan in self.scans]
        # Each person counts by the root of their scans: one with many is seen more, but does not drown the others.
        weights = np.array([people.count(who) ** -0.5 for who in people])
        self._weights = weights / weights.sum()

    def random_scan(self, random: np.random.RandomState) -> int:
        """A scan's number."""
        return int(random.choice(len(self.scans), p=self._weights))

    def slice_axis(self, number: int) -> int | None:
        """The axis of a scan's thick slices, None where its voxels are cubes."""
        scan = self.scans[number]
        return None if scan.isotropic else int(np.argmax(scan.spacing))

    def random_patch(self, number: int, order: Sequence[int], size: Size, random: np.random.RandomState) -> Tensor:
        """A piece of scan `number`, its axes in `order`, flipped at random: float32 of `size`, 1 at the scale.

        Ends repeat where a scan is smaller than the piece.
        """
        whole = self._data[number].permute(*order)
        where = [int(random.randint(max(n - want, 0) + 1)) for n, want in zip(whole.shape, size, strict=True)]
        z, y, x = (slice(at, at + want) for at, want in zip(where, size, strict=True))
        piece = whole[z, y, x].float() / FULL
        missing = [want - n for n, want in zip(piece.shape, size, strict=True)]
        if any(missing):
            pad = [p for lack in reversed(missing) for p in (lack // 2, lack - lack // 2)]
            piece = F.pad(piece[None, None], pad, mode="replicate")[0, 0]
        flips = [axis for axis in range(3) if random.rand() < 0.5]
        return piece.flip(flips) if flips else piece
