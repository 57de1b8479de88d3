"""How a Mamba-2 scan is cut for the GPU: chunks of steps, segments of chunks, and tiles of states and channels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

MOST_STATES = 256

TILE = 8192
"""States times channels that one program carries, at most."""

SEGMENT_STEPS = 64
"""Segments are multiples of so many steps, and so are chunks of them."""


@dataclass(frozen=True)
class Layout:
    """How a kernel's programs are laid out.

    Attributes
    ----------
    warps, stages : int
        As Triton names them.
    part : int
        Channels of a head that one program takes at most; a wider head is taken as several of one step size.
    """

    warps: int = 4
    stages: int = 2
    part: int = 64


@dataclass(frozen=True)
class Tuning:
    """Steps of a chunk, and the layouts of the kernels: see `states`, `output` and `gradients`.

    `together` is how many states' gradients of B and C one program sums. As an H200 decided: see
    `benchmarks/scan/results/ssd-tune.md`.
    """

    chunk: int = 64
    carry: Layout = Layout(stages=3)
    outputs: Layout = Layout()
    inputs: Layout = Layout(part=32)
    matrices: Layout = Layout(stages=3)
    together: int = 128

    def smaller(self, stages: int, part: int, chunk: int) -> Tuning:
        """The same with at most so many stages, channels and steps: less shared memory."""
        layouts = {
            name: replace(layout, stages=min(layout.stages, stages), part=min(layout.part, part))
            for name, layout in vars(self).items()
            if isinstance(layout, Layout)
        }
        return replace(self, chunk=min(self.chunk, chunk), together=min(self.together, 2 * part), **layouts)


@dataclass(frozen=True)
class Plan:
    """Sizes of one scan, and how it is cut.

    Attributes
    ----------
    batch, paths, length, heads, groups, states, width : int
        B, K, L, H, G, N and P.
    units : int
        Multiprocessors of the GPU.
    programs : int
        Programs that a multiprocessor is given, if there are steps enough.
    """

    batch: int
    paths: int
    length: int
    heads: int
    groups: int
    states: int
    width: int
    units: int
    programs: int = 4

    @cached_property
    def tile(self) -> tuple[int, int]:
        """States and channels of a head's state in memory: powers of two, or multiples of 64 channels."""
        return _power(self.states), _power(self.width) if self.width <= 64 else 64 * -(-self.width // 64)

    @cached_property
    def sequences(self) -> int:
        """Batch times paths."""
        return self.batch * self.paths

    @cached_property
    def span(self) -> int:
        """Steps of a segment, such that all heads in segments keep the GPU busy."""
        blocks = -(-self.length // SEGMENT_STEPS)
        wanted = max(1, self.programs * self.units // (self.sequences * self.heads * -(-self.width // 64)))
        return SEGMENT_STEPS * -(-blocks // min(wanted, blocks))

    @cached_property
    def segments(self) -> int:
        return -(-self.length // self.span)

    def chunks(self, chunk: int) -> int:
        """Chunks of so many steps."""
        return -(-self.length // chunk)

    def part(self, layout: Layout) -> int:
        """Channels that a program takes."""
        states, channels = self.tile
        return min(channels if channels <= 64 else 64, layout.part, max(16, TILE // states))

    def parts(self, layout: Layout) -> int:
        """Parts of a head's state, so that all of it is written whatever its readers' parts."""
        return self.tile[1] // self.part(layout)

    def shares(self, tuning: Tuning) -> int:
        """Among how many programs the heads of a group are shared, for the gradients of B and C."""
        states = max(1, self.tile[0] // tuning.together)
        wanted = -(-self.programs * self.units // (self.chunks(tuning.chunk) * self.sequences * self.groups * states))
        return max(1, min(self.heads // self.groups, wanted))

    def sizes(self, layout: Layout) -> dict[str, int]:
        """What a kernel is compiled for."""
        states, channels = self.tile
        return {
            "PARTS": self.parts(layout), "GROUPS": self.groups, "N": self.states, "P": self.width, "W": channels,
            "BN": states, "BP": self.part(layout),
        }  # fmt: skip


def _power(number: int) -> int:
    return max(16, 1 << (number - 1).bit_length())


def tunings(plan: Plan, dtype: torch.dtype) -> Iterable[Tuning]:
    """What to try, best first; later ones need less shared memory."""
    states, channels = plan.tile
    best = Tuning()
    if dtype == torch.float32 and states * channels > 2048:
        best = replace(Tuning(32).smaller(1, 32, 32), outputs=Layout(8, 1, 64), matrices=Layout(4, 2, 32))
    yield best
    # Two stages wherever 16 bits are: on an H200 one stage of 32 channels and 64 steps touched memory not its own,
    # likely by the compiler's fault (docs/scan_cuda.md).
    yield best.smaller(2, 32, 64)
    yield best.smaller(2, 32, 32)
    yield best.smaller(2, 16, 32)
