"""Runs of the command into a Zarr store, to go on from where they were stopped, and on a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.errors import InputError
from napari_mamba.io.stores import address_of, is_address

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.cluster import Cluster
    from napari_mamba.engine import Progress, Result, RunOptions
    from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Storing:
    """What the command says about runs into stores and on clusters.

    Attributes
    ----------
    resume : bool
        Go on with what was stopped.
    scheduler : str, optional
        Address of a Dask scheduler.
    workers : int, optional
        Processes of this machine; None: as many as there are GPUs, one where there is none.
    dry_run : bool
        Tell what a run would take, and stop.
    """

    resume: bool = False
    scheduler: str | None = None
    workers: int | None = None
    dry_run: bool = False

    def check(self, output: Path | None) -> None:
        """Raise `InputError` where options for stores are given with another output."""
        if is_store(output):
            return
        if self.resume:
            raise InputError("--resume is for outputs in a Zarr store: name one that ends in .zarr")
        if output is not None and is_address(output):
            raise InputError(f"{output} is an address, where Zarr stores alone are written: let it end in .zarr")

    @property
    def asked(self) -> bool:
        """Whether something was said that a run in memory cannot keep."""
        return self.resume or self.scheduler is not None or self.workers is not None


def is_store(output: Path | None) -> bool:
    """Whether an output is a Zarr store."""
    return output is not None and output.name.lower().endswith(".zarr")


def run_stored(
    inputs: Sequence[Path],
    reading: dict[str, Any],
    bundle: Bundle,
    output: Path,
    options: RunOptions,
    storing: Storing,
    *,
    overwrite: bool,
    tell: Callable[[Progress], None],
    cancel: threading.Event,
    cluster: Callable[[], Cluster | None],
) -> Result | None:
    """The result of a run out of core; None where the bundle or an option needs the image in memory, if that may be.

    Parameters
    ----------
    cluster : callable
        Gives the workers that compute, None for this process.
    """
    from napari_mamba import io
    from napari_mamba.engine.device import choose_device
    from napari_mamba.engine.memory import keep_one_heap
    from napari_mamba.engine.stored.reading.needs import NeedsMemory
    from napari_mamba.engine.stored.run import check_stored, run_into

    try:
        check_stored(bundle, options)
    except NeedsMemory:
        if storing.resume or is_address(output):
            raise
        return None
    if choose_device(options.device, options.precision).torch_device.type == "cpu":  # a GPU's many threads would wait
        keep_one_heap()
    paths = (address_of(path) if is_address(path) else os.path.abspath(path) for path in inputs)
    source = io.Opener(tuple(paths), reading)  # of a name that other processes find, too
    how: dict[str, Any] = {"resume": storing.resume, "overwrite": overwrite}
    if (workers := cluster()) is not None:
        from napari_mamba.cluster import SpreadJobs

        how["spread"] = SpreadJobs(workers)
    return _driven(run_into(source, bundle, output, options, cancel, **how), tell)


def run_on_cluster(
    volume: Volume,
    bundle: Bundle,
    options: RunOptions,
    cluster: Cluster,
    folder: Path,
    *,
    tell: Callable[[Progress], None],
    cancel: threading.Event,
) -> Result:
    """The result of a volume in memory that a cluster computes; it lies in `folder` meanwhile, which workers see."""
    from napari_mamba.cluster import run_on

    return _driven(run_on(cluster, volume, bundle, options, cancel, folder=folder.absolute()), tell)


def _driven(events: Generator[Progress, None, Result], tell: Callable[[Progress], None]) -> Result:
    while True:
        try:
            tell(next(events))
        except StopIteration as end:
            return end.value


def joined(
    scheduler: str | None, workers: int | None, device: str, stack: ExitStack, say: Callable[[str], None]
) -> Cluster | None:
    """A cluster if one was asked for, or this machine has several GPUs and none was chosen; else None."""
    if scheduler is not None and workers is not None:
        raise InputError("--workers is for this machine, and --scheduler for a cluster: give one of them")
    if scheduler is None and workers is None:
        from napari_mamba.cluster.connecting import gpus

        workers = gpus() if device in ("auto", "cuda") else 1
        if workers < 2:
            return None
    if scheduler is None and workers == 1:
        return None
    from napari_mamba.cluster import connect

    cluster = stack.enter_context(connect(scheduler, workers))
    say(f"{cluster.workers} workers; dashboard: {cluster.dashboard}")
    return cluster
