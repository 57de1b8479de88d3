"""Seconds and memory of a run before it, from the runs of this machine. No Qt."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

_log = logging.getLogger(__name__)
KEPT = 8
"""Runs of one kind that are remembered."""


@dataclass(frozen=True)
class Measured:
    """One run that went through.

    Parameters
    ----------
    seconds : float
        The whole run.
    network_seconds : float
        Its passes of the network.
    passes : int
    voxels : int
        Of the image.
    memory : int
        Bytes that the run took beside what was there before; 0 where unknown.
    """

    seconds: float
    network_seconds: float
    passes: int
    voxels: int
    memory: int


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take; `pass_seconds` is for its progress. `runs` is how many were measured."""

    seconds: float
    memory: int
    pass_seconds: float
    runs: int


class Estimates:
    """Measured runs, a list for each bundle, device and precision, in a file of the user's cache folder.

    Parameters
    ----------
    path : Path
        JSON; need not be there. A damaged one counts as none.
    """

    def __init__(self, path: Path):
        self._path = path
        self._runs: dict[str, list[Measured]] | None = None

    def add(self, key: str, run: Measured) -> None:
        """Remember a run."""
        runs = self._load()
        runs[key] = [*runs.get(key, []), run][-KEPT:]
        text = json.dumps({k: [asdict(one) for one in ones] for k, ones in runs.items()})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".new")
            beside.write_text(text, encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            _log.info("estimates not kept: %s", error)

    def estimate(self, key: str, passes: int, voxels: int) -> Estimate | None:
        """Of a run of so many passes over an image of so many voxels; None where nothing like it was measured.

        Passes all take the same time, since their tiles have one size; preparing and restoring goes with the voxels,
        as does the memory beyond the smallest run's.
        """
        runs = self._load().get(key)
        if not runs:
            return None
        pass_seconds = median(run.network_seconds / max(run.passes, 1) for run in runs)
        rest = [(run.seconds - run.network_seconds) / max(run.voxels, 1) for run in runs]
        smallest = min(runs, key=lambda run: run.voxels)
        floor = min(run.seconds - run.network_seconds for run in runs)
        seconds = pass_seconds * passes + max(median(rest) * voxels if voxels > smallest.voxels else floor, 0.0)
        known = [run for run in runs if run.memory]
        return Estimate(seconds, _memory(known, voxels), pass_seconds, len(runs))

    def _load(self) -> dict[str, list[Measured]]:
        if self._runs is None:
            self._runs = {}
            with suppress(OSError, ValueError, TypeError, AttributeError):
                entries: dict[str, list[dict[str, Any]]] = json.loads(self._path.read_text(encoding="utf-8"))
                self._runs = {key: [Measured(**one) for one in ones] for key, ones in entries.items()}
        return self._runs


def _memory(runs: list[Measured], voxels: int) -> int:
    """Bytes: a line through the smallest and the largest image measured, never below what a like image took."""
    if not runs:
        return 0
    runs = sorted(runs, key=lambda run: run.voxels)
    low, high = runs[0], runs[-1]
    like = max(run.memory for run in runs if run.voxels <= max(voxels, low.voxels))
    if high.voxels > low.voxels:
        slope = max(high.memory - low.memory, 0) / (high.voxels - low.voxels)
        return max(like, int(low.memory + slope * (voxels - low.voxels)))
    return max(like, int(high.memory * voxels / high.voxels)) if voxels > high.voxels else like


def default_path() -> Path:
    """Where the runs of this user are remembered."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("napari-mamba", appauthor=False)) / "runs.json"


def key_of(bundle: Any, device: str, options: Any) -> str:
    """What makes runs alike: the bundle's version, the device and its precision, the tile and the batch."""
    return "|".join(
        str(part)
        for part in (
            bundle.name, bundle.version, device, options.precision, options.tile, options.batch_size,
            options.uncertainty, options.probabilities,
        )
    )  # fmt: skip
