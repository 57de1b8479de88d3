"""The sizes of the kernels of the scan's gradients: lanes, tiles, segments, chunks. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

BLOCK = 4  # positions whose states are in registers
LONGEST = 32  # positions of a segment
MAX_SEGMENTS = 16  # of a chunk
ENOUGH = 3  # blocks, one after another, that keep a device busy to the end
RESIDENT = 8  # warps of scan_gradients on a multiprocessor, by their registers
RESERVED = 1024  # bytes of shared memory that a block takes beside its own
ROOMY = 160 * 1024  # bytes of shared memory that one block may have, where segments are long


def _power_of_two(x: int) -> int:
    return 1 << max(0, x - 1).bit_length()


@dataclass(frozen=True)
class Shared:
    """Shared memory of a device, in bytes: what one block may have, and what a multiprocessor has."""

    block: int
    multiprocessor: int


@dataclass(frozen=True)
class Tuning:
    """Which problems scan_gradients_few takes, and how it cuts them, as an H200 decided; right with any of it.

    `benchmarks.scan.tune` times others, and `benchmarks/scan/results/scan-tune-2.md` has what it found.

    Attributes
    ----------
    few, few_gated : int
        States up to which scan_gradients_few runs in place of scan_gradients, without and with z; 4 at most.
    whole : int
        States up to which it may have whole sequences, without z.
    full : float
        Share of a device's warps, in the last round of blocks too, that whole sequences have to fill.
    warps, warps_gated, segments : int
        Its warps of a block, without and with z, and segments of a chunk at most.
    resident, roomy : int
        Its warps on a multiprocessor, of chunks of up to `narrow` states without z, and of all else.
    narrow : int
        States that leave registers for so many warps.
    """

    few: int = 4
    few_gated: int = 2
    whole: int = 4
    full: float = 0.9
    warps: int = 2
    warps_gated: int = 4
    segments: int = 128
    resident: int = 16
    roomy: int = 12
    narrow: int = 2


TUNING = Tuning()


@dataclass(frozen=True)
class Plan:
    """The sizes that scan_backward.cu derives from STATES, and what a launch derives from them."""

    states: int

    @cached_property
    def lanes(self) -> int:
        """Lanes that share channels."""
        return _power_of_two(-(-self.states // 4))

    @cached_property
    def per_lane(self) -> int:
        """States of a lane."""
        return -(-self.states // self.lanes)

    @cached_property
    def channels(self) -> int:
        """Channels that lanes share."""
        return min(4, self.lanes)

    @cached_property
    def tile(self) -> int:
        """Channels of a warp."""
        return 32 // self.lanes * self.channels

    @cached_property
    def walk_lanes(self) -> int:
        """Lanes that share a channel where a chunk is only walked."""
        return _power_of_two(-(-self.states // 16))

    def gradients_shared(self, segment: int, warps: int) -> int:
        """Return the bytes of shared memory of a block of scan_gradients."""
        blocks = -(-segment // BLOCK)
        row = 2 * self.lanes * self.per_lane
        walked = max(0, blocks - 2) * self.per_lane * self.channels * 32
        each = 3 * blocks * BLOCK * self.tile + walked + 2 * BLOCK * row
        return 4 * (blocks * BLOCK * (row + 1) + warps * each)

    @cached_property
    def walk_shared(self) -> int:
        """Bytes of shared memory of the kernels that walk over chunks, LONGEST positions at a time."""
        each = -(-self.states // self.walk_lanes)
        return 4 * LONGEST * (self.walk_lanes * (-(-each // 4) * 4) + 1)

    def resident(self, segment: int, warps: int, shared: Shared) -> int:
        """Return how many warps of scan_gradients a multiprocessor holds; 0 where a block does not fit."""
        needed = self.gradients_shared(segment, warps)
        if needed > shared.block:
            return 0
        return warps * min(RESIDENT // warps, shared.multiprocessor // (needed + RESERVED))

    def segment(self, kept: int, shared: Shared) -> int:
        """Return the longest part of `kept` positions that suits shared memory and divides them."""
        longest = LONGEST if shared.block >= ROOMY else LONGEST // 2
        return next(kept // ratio for ratio in range(1, kept + 1) if kept % ratio == 0 and kept // ratio <= longest)


def warps_for(plan: Plan, segment: int, channels: int, shared: Shared) -> int:
    """Return the warps of a block, each with a tile of a group's channels: those that keep a multiprocessor busiest.

    Examples
    --------
    >>> h100 = Shared(227 * 1024, 228 * 1024)
    >>> [warps_for(Plan(16), 32, channels, h100) for channels in (32, 64, 96, 384)]
    [1, 2, 4, 4]
    """
    tiles = -(-channels // plan.tile)

    def busy(warps: int) -> float:
        # A block brings B and C, which costs its warps the less the more they are.
        return plan.resident(segment, warps, shared) * tiles / (-(-tiles // warps) * (warps + 0.5))

    return max((4, 3, 2, 1), key=busy)


def segments_for(warps: int, resident: int, most: int = MAX_SEGMENTS) -> int:
    """Return the segments of a chunk, at most `most`, where `warps` warps of one segment share a device of `resident`.

    As many as do not leave the device idle at the end: fewer chunks have fewer states and sums between them.

    Examples
    --------
    >>> segments_for(1024, 1056), segments_for(2048, 1056), segments_for(12288, 1056), segments_for(65536, 1056)
    (1, 2, 4, 16)
    """

    def waves(segments: int) -> int:
        return -(-warps // (segments * resident))

    least = min(n * waves(n) for n in range(1, most + 1))
    good = [n for n in range(1, most + 1) if n * waves(n) <= 1.03 * least and (n <= 4 or waves(n) >= ENOUGH)]
    return max(good, default=1)


def whole_sequences_fill(warps: int, resident: int, full: float = TUNING.full) -> bool:
    """Whether `warps` warps, each with a whole sequence, keep a device of `resident` warps busy to the end.

    Nothing then has to run before the gradients, which a cut into chunks takes.

    Examples
    --------
    >>> [whole_sequences_fill(warps, 1584) for warps in (96, 1536, 1600, 15000)]
    [False, True, False, True]
    """
    return warps >= full * resident * -(-warps // resident)


@cache
def plan_for(states: int) -> Plan:
    """Return the one plan of a number of states, which keeps what it has worked out."""
    return Plan(states)
