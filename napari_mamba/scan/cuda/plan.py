"""How a forward scan is cut up for a device: which kernels, how long the chunks, how many threads. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

TILE = 16  # positions staged at once; a chunk is a multiple of it
KEPT = 32  # ... and of this where its start states are kept: the backward pass cuts it into such pieces
SHORTEST = 64  # positions of a chunk, below which its launch costs more than its work
SHORT = 2048  # the longest sequence that one block holds
FINE, KEPT_FINE = 2, 16  # ... shorter ones of so few states, which cost little memory and spare it a second walk
PARALLEL_BYTES = 16 * 2**20  # outputs of single paths kept side by side rather than added up one path after another
RESIDENT = {16: 16, 64: 8}  # warps of a multiprocessor, by the states a thread holds: what its registers allow
STAGED_STATES = 16  # up to which rows may go by way of shared memory
PAIRED = {8: 16, 16: 12, 32: 6}  # ... where a thread has two channels
MIDDLE = 1024  # ... and half a block, where many sequences fill the card
SPLITS = (4, 8, 16)  # lanes that share a channel of a short sequence
LONG = 256  # positions of a chunk, from which on eight rows under way are better than four
WAVES = 1  # blocks wanted, in full loads of the card


@dataclass(frozen=True)
class Plan:
    """One way to run the forward scan.

    Attributes
    ----------
    kind : {"short", "single", "chunks"}
        One launch with a block for a whole sequence; one launch with a thread for a whole sequence; chunks in parallel.
    chunk, chunks : int
        Steps of a chunk and how many there are.
    threads, blocks : int
        Threads of a block, and blocks a multiprocessor holds (kinds "single" and "chunks").
    ahead, poly, channels : int
        The macros AHEAD, POLY and CHANNELS of the kernels; channels of a thread are 1 where threads * channels does not
        divide those of a group.
    staged : bool
        Rows are copied to shared memory and not to registers, for which rows have to be aligned to 16
        bytes and 32 has to divide the channels of a group.
    split, warps : int
        Lanes that share a channel, and chunks (kind "short").
    """

    kind: str
    chunk: int
    chunks: int
    threads: int = 64
    blocks: int = 8
    ahead: int = 4
    poly: int = 0  # on an H200 the special-function units alone were as fast as or faster than any mixture
    channels: int = 1
    staged: bool = False
    split: int = 8
    warps: int = 32


def _up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple


def block_width(channels: int) -> int:
    """Return the channels of a block that leave the fewest idle, 64 where several do."""
    return min((64, 96, 128, 32), key=lambda threads: _up(channels, threads))


def piece_of(states: int) -> int:
    """Positions of the pieces before which start states are kept.

    Examples
    --------
    >>> piece_of(1), piece_of(16)
    (16, 32)
    """
    return KEPT_FINE if states <= FINE else KEPT


def short_plan(sequences: int, length: int, channels: int, states: int, multiprocessors: int) -> Plan:
    """Return the plan of a sequence that a block holds: fewer channels a block while that leaves the card idle."""
    wanted = (
        0.75 * multiprocessors
    )  # a multiprocessor holds one block of 32 warps: a second wave costs more than idling
    split = next((s for s in SPLITS if sequences * -(-channels // (32 // s)) >= wanted), SPLITS[-1])
    split = max(4, min(split, 1 << max(0, states - 1).bit_length()))
    warps = 32 if length > 16 * split else 16 if length > 8 * split else 8
    if split == SPLITS[0] and length <= MIDDLE:  # the card is full: fewer, longer chunks cost less
        warps = min(warps, 16)
    chunk = _up(-(-length // warps), split)
    return Plan("short", chunk, -(-length // chunk), split=split, warps=warps)


def chunk_plan(
    sequences: int,
    length: int,
    channels: int,
    states: int,
    multiprocessors: int,
    keep: bool,
    paired: bool = False,
    staged: bool = False,
) -> Plan:
    """Return the plan with chunks: as many blocks as the card holds at once, so that no second wave is half empty.

    `paired`: threads have two channels where 64 divides them. Of a position and channel, the machine code then has 126
    instructions rather than 148 and half the loads from shared memory; whether that is faster is to be measured.
    `staged`: rows may go by way of shared memory.
    """
    paired = paired and channels % 64 == 0 and states <= max(PAIRED)
    threads = 32 if paired else block_width(channels)
    warps = next(count for most, count in (PAIRED if paired else RESIDENT).items() if states <= most)
    staged = staged and states <= STAGED_STATES and not paired
    resident = max(1, 32 * warps // threads)
    rows = sequences * -(-channels // (2 * threads if paired else threads))  # blocks of one chunk
    wanted = max(1, WAVES * resident * multiprocessors // rows)
    chunk = _up(max(SHORTEST, -(-length // wanted)), KEPT if keep else TILE)
    kind = "single" if chunk >= length else "chunks"
    # 64 states leave no registers for rows under way; long chunks gain 2 to 3% from more of them.
    ahead = 1 if states > 32 else 8 if chunk >= LONG and states <= 16 and not paired else 4
    cut = min(chunk, _up(length, KEPT))
    each = 2 if paired else 1
    ahead = 8 if staged else ahead
    return Plan(kind, cut, -(-length // chunk), threads, resident, ahead, channels=each, staged=staged)


@lru_cache(maxsize=4096)
def make_plan(
    batch: int,
    paths: int,
    length: int,
    width: int,
    groups: int,
    states: int,
    multiprocessors: int,
    keep: bool,
    staged: bool = False,
) -> Plan:
    """Return the plan for `paths` paths scanned side by side on a device.

    Examples
    --------
    >>> make_plan(1, 1, 512, 64, 1, 16, 132, False).kind
    'short'
    >>> make_plan(1, 1, 64**3, 64, 1, 16, 132, False).chunks
    1024
    """
    sequences, channels = batch * paths * groups, width // groups
    plan = chunk_plan(sequences, length, channels, states, multiprocessors, keep, staged=staged)
    if (plan.kind == "single" and length > SHORTEST) or length > SHORT:
        return plan
    return short_plan(sequences, length, channels, states, multiprocessors)
