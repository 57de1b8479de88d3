"""The sizes of the kernels of the scan's gradients: lanes, tiles and shared memory. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

BLOCK = 8  # positions between the states that a block of threads keeps
LONGEST = 64  # positions of a chunk where 16 states are kept, in SHARED
RESIDENT = 512  # threads of scan_gradients on a multiprocessor, as its launch bounds say
SHARED = 56 * 1024  # bytes: four blocks on a multiprocessor of compute capability 8.0 or 9.0


def _power_of_two(x: int) -> int:
    return 1 << max(0, x - 1).bit_length()


@dataclass(frozen=True)
class Plan:
    """The sizes that scan_backward.cu derives from STATES, and what a launch derives from them."""

    states: int

    @cached_property
    def lanes(self) -> int:
        """Lanes that share a channel."""
        return _power_of_two(-(-self.states // 4))

    @cached_property
    def per_lane(self) -> int:
        return -(-self.states // self.lanes)

    @cached_property
    def threads(self) -> int:
        return 64 if self.lanes == 1 else 128

    @cached_property
    def tile(self) -> int:
        """Channels of a block of threads."""
        return self.threads // self.lanes

    @cached_property
    def walk_lanes(self) -> int:
        """Lanes that share a channel where a chunk is only walked."""
        return _power_of_two(-(-self.states // 16))

    def gradients_shared(self, chunk: int) -> int:
        """Return the bytes of shared memory of scan_gradients."""
        blocks = -(-chunk // BLOCK)
        row = 2 * self.lanes * self.per_lane
        rows = blocks * BLOCK * (2 * row + 3 * self.tile + 1) + (self.threads // 32 - 1) * BLOCK * row
        return 4 * (rows + max(0, blocks - 2) * self.per_lane * self.threads)

    def walk_shared(self, chunk: int) -> int:
        """Return the bytes of shared memory of the kernels that walk a chunk."""
        each = -(-self.states // self.walk_lanes)
        return 4 * chunk * (self.walk_lanes * (-(-each // 4) * 4) + 1)

    def chunk(self, kept: int) -> int:
        """Return the longest part of a chunk of `kept` positions that fits in shared memory and divides it."""
        parts = (kept // ratio for ratio in range(1, kept + 1) if kept % ratio == 0)
        return next((part for part in parts if self.gradients_shared(part) <= SHARED), 1)


def splits_for(blocks: int, tiles: int, resident: int) -> int:
    """Return among how many blocks the tiles of a chunk's channels are divided.

    Few, since each block adds a share of the gradients of B and C; but so that a device that holds `resident` blocks at
    a time is busy to the end.

    Examples
    --------
    >>> splits_for(512, 12, 528), splits_for(8, 32, 528), splits_for(600, 12, 528)
    (1, 32, 6)
    """

    def busy(splits: int) -> float:
        waves = -(-blocks * splits // resident)
        return blocks * tiles / (waves * resident * -(-tiles // splits))

    best = max(map(busy, range(1, tiles + 1)))
    return next(splits for splits in range(1, tiles + 1) if busy(splits) >= 0.95 * best)


@cache
def plan_for(states: int) -> Plan:
    """Return the one plan of a number of states, which keeps what it has worked out."""
    return Plan(states)


@cache
def chunk_for(states: int, kept: int) -> int:
    """Return `Plan.chunk` of a number of states."""
    return plan_for(states).chunk(kept)
