"""How a Mamba-2 scan is cut for the GPU: chunks of steps, segments of chunks, and tiles of states and channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

MOST_STATES = 256
WIDEST_PART = 64
"""Channels of a head that one program takes; a wider head is taken in parts, as heads of one step size."""

PROGRAMS_PER_UNIT = 4
"""Programs that a multiprocessor is given, if there are chunks enough."""

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
    """Sizes of one scan; `span` is the steps of a segment."""

    batch: int
    paths: int
    length: int
    heads: int
    groups: int
    states: int
    width: int
    span: int

    @property
    def parts(self) -> int:
        """Parts of a head."""
        return -(-self.width // WIDEST_PART)

    @property
    def sequences(self) -> int:
        return self.batch * self.paths

    @property
    def rows(self) -> int:
        """Sequences times heads' parts: what is independent of each other."""
        return self.sequences * self.heads * self.parts

    @property
    def segments(self) -> int:
        return -(-self.length // self.span)

    @property
    def tile(self) -> tuple[int, int]:
        """States and channels of a program's tile: powers of two, at least what a tensor core takes."""
        return _power(self.states), min(_power(self.width), WIDEST_PART)

    def chunks(self, chunk: int) -> int:
        return -(-self.length // chunk)

    def sizes(self) -> dict[str, int]:
        """What the kernels are compiled for."""
        states, channels = self.tile
        return {
            "PATHS": self.paths, "HEADS": self.heads, "PARTS": self.parts, "GROUPS": self.groups, "N": self.states,
            "P": self.width, "BN": states, "BP": channels,
        }  # fmt: skip


def _power(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())


def span_of(length: int, rows: int, units: int) -> int:
    """Steps of a segment, such that `rows` scans in segments keep a GPU of some multiprocessors busy."""
    blocks = -(-length // SEGMENT_STEPS)
    wanted = max(1, PROGRAMS_PER_UNIT * units // rows)
    return SEGMENT_STEPS * -(-blocks // min(wanted, blocks))


def shares_of(plan: Plan, chunks: int, units: int) -> int:
    """Among how many programs the heads of a group are shared in the backward."""
    heads = plan.heads // plan.groups * plan.parts
    wanted = -(-PROGRAMS_PER_UNIT * units // (chunks * plan.sequences * plan.groups))
    return max(1, min(heads, wanted))


def forward_tunings(plan: Plan, dtype: torch.dtype) -> Iterable[Tuning]:
    """What to try for `states.carry` and `output.outputs`, best first; later ones need less shared memory."""
    large = plan.tile[0] * plan.tile[1] > 4096
    first = 32 if dtype == torch.float32 and large else 64
    yield Tuning(first, 4, 2)
    yield Tuning(first, 4, 1)
    yield Tuning(32, 4, 1)
    yield Tuning(16, 4, 1)


def backward_tunings(plan: Plan, dtype: torch.dtype) -> Iterable[Tuning]:
    """What to try for `gradients.gradients`, best first."""
    first = 32 if dtype == torch.float32 else 64
    warps = 8 if plan.tile[0] > 32 else 4
    yield Tuning(first, warps, 2)
    yield Tuning(first, warps, 1)
    yield Tuning(32, 4, 1)
    yield Tuning(16, 4, 1)
