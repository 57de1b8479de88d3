"""What the stages of one run share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_mamba.engine.device import Device
from napari_mamba.engine.familiarity.judge import Judgement
from napari_mamba.engine.memory import host_array
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import Plan
from napari_mamba.engine.progress.reporting import Reporter
from napari_mamba.engine.result import Result
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

NewArray = Callable[[tuple[int, ...], Any], Any]
"""``new_array(shape, dtype)`` gives what slices are written into: an array in main memory, or one in a store on disk.

It takes basic slices on both sides of an assignment, and what is written last is what it holds.
"""


@dataclass
class Context:
    """One run: what goes in, how it is computed, whom it tells, and what comes out.

    `device` and `plan` change where an attempt runs out of memory or precision; `volume` becomes the checked one.
    `familiar` is how far the image is from those of the bundle's training, as far as that is known yet.
    """

    volume: Volume
    bundle: Bundle
    options: RunOptions
    device: Device
    plan: Plan
    report: Reporter
    new_array: NewArray = host_array
    result: Result = field(default_factory=Result)
    familiar: list[Judgement] = field(default_factory=list)
