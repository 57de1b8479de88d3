"""What a run remembers about itself: times, warnings, and the provenance that goes with its result."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median
from time import perf_counter
from typing import Any

from napari_mamba import __version__
from napari_mamba.engine.options import RunOptions
from napari_mamba.volume import Volume


class Record:
    """Times per stage and warnings of one run.

    Examples
    --------
    >>> record = Record()
    >>> record.start_stage("preparing"); record.start_stage("network"); record.end_stage()
    >>> list(record.seconds)
    ['preparing', 'network']
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self.facts: dict[str, Any] = {}
        self._stage = ""
        self._since = 0.0

    def start_stage(self, stage: str) -> None:
        """Begin a stage, which ends the one before."""
        self.end_stage()
        self._stage, self._since = stage, perf_counter()

    def end_stage(self) -> None:
        """End the present stage."""
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + perf_counter() - self._since
        self._stage = ""

    def warn(self, sentence: str) -> str:
        """Keep a warning, once; returns it."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)
        return sentence

    def provenance(self, volume: Volume, bundle: Any, options: RunOptions) -> dict[str, Any]:
        """Everything needed to say how a result came about, as JSON can hold it."""
        import numpy
        import torch

        from napari_mamba.scan.cpu.threads import thread_count

        self.end_stage()
        sha256 = bundle.sha256
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "napari_mamba": __version__,
            "torch": str(torch.__version__),  # a plain text: its own class would import torch where it is read
            "numpy": numpy.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "threads": thread_count(),
            "options": options.to_dict(),
            "bundle": {
                "name": bundle.name,
                "version": bundle.version,
                "sha256": dict(sha256) if isinstance(sha256, Mapping) else sha256,
            },
            "input": {
                "name": volume.name,
                "shape": list(volume.data.shape),
                "affine": volume.affine.tolist(),
                "units": volume.units,
                "channel_names": list(volume.channel_names),
            },
            **self.facts,
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "warnings": list(self.warnings),
        }


class TimeEstimator:
    """Time left, from the durations of equal steps.

    The median of the latest steps, so that one slow step (a first pass, a busy machine) does not shake it.
    """

    def __init__(self, total: int):
        self.total = total
        self.durations: list[float] = []

    def add(self, seconds: float) -> None:
        """Note one finished step."""
        self.durations.append(seconds)

    @property
    def done(self) -> int:
        """Finished steps."""
        return len(self.durations)

    @property
    def seconds_left(self) -> float | None:
        """Until all steps are done; None before the first is."""
        if not self.durations:
            return None
        # Libraries pick their kernels in the first pass, which is not like the others.
        recent = self.durations[1:][-30:] or self.durations
        return median(recent) * (self.total - self.done)
