"""How a Mamba-2 scan is cut for the GPU: chunks of steps, segments of chunks, and tiles of states and channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

MOST_STATES = 256

TILE = 8192
"""States times channels that one program carries, at most."""

SEGMENT_STEPS = 64
"""Segments are multiples of so many steps, and so are chunks of them."""


@dataclass(frozen=True)
class Tuning:
    """Steps of a chunk, and how the compiler lays a program out."""

    chunk: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Plan:
    """Sizes of one scan, and how it is cut.

    Attributes
    ----------
    batch, paths, length, heads, groups, states, width : int
        B, K, L, H, G, N and P.
    units : int
        Multiprocessors of the GPU.
    part : int
        Channels of a head that one program takes at most; a wider head is taken as several of one step size.
    programs : int
        Programs that a multiprocessor is given, if there are steps enough.
    together : int
        States whose gradients of B and C one program sums.
    """

    batch: int
    paths: int
    length: int
    heads: int
    groups: int
    states: int
    width: int
    units: int
    part: int = 64
    programs: int = 4
    together: int = 128

    @property
    def tile(self) -> tuple[int, int]:
        """States and channels of a program's tile: powers of two, at least what a tensor core takes."""
        states = _power(self.states)
        return states, min(_power(self.width), self.part, max(16, TILE // states))

    @property
    def parts(self) -> int:
        """Parts of a head."""
        return -(-self.width // self.tile[1])

    @property
    def sequences(self) -> int:
        """Batch times paths."""
        return self.batch * self.paths

    @property
    def rows(self) -> int:
        """Sequences times heads' parts: what is independent of each other."""
        return self.sequences * self.heads * self.parts

    @property
    def span(self) -> int:
        """Steps of a segment, such that all rows in segments keep the GPU busy."""
        blocks = -(-self.length // SEGMENT_STEPS)
        wanted = max(1, self.programs * self.units // self.rows)
        return SEGMENT_STEPS * -(-blocks // min(wanted, blocks))

    @property
    def segments(self) -> int:
        return -(-self.length // self.span)

    def chunks(self, chunk: int) -> int:
        """Chunks of so many steps."""
        return -(-self.length // chunk)

    def shares(self, chunk: int) -> int:
        """Among how many programs the heads of a group are shared, for the gradients of B and C."""
        states = max(1, self.tile[0] // self.together)
        wanted = -(-self.programs * self.units // (self.chunks(chunk) * self.sequences * self.groups * states))
        return max(1, min(self.heads // self.groups * self.parts, wanted))

    def sizes(self) -> dict[str, int]:
        """What the kernels are compiled for."""
        states, channels = self.tile
        return {
            "PATHS": self.paths, "HEADS": self.heads, "PARTS": self.parts, "GROUPS": self.groups, "N": self.states,
            "P": self.width, "BN": states, "BP": channels,
        }  # fmt: skip


def _power(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())


def tunings(plan: Plan, dtype: torch.dtype) -> Iterable[Tuning]:
    """What to try, best first; later ones need less shared memory."""
    states, channels = plan.tile
    first = 32 if dtype == torch.float32 and states * channels > 2048 else 64
    yield Tuning(first, 4, 2)
    yield Tuning(first, 4, 1)
    yield Tuning(32, 4, 1)
    yield Tuning(16, 4, 1)
