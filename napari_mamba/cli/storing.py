"""Runs of the command into a Zarr store: out of core, to go on from where they were stopped, on a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Storing:
    """What the command says about runs into stores.

    Attributes
    ----------
    resume : bool
        Go on with what was stopped.
    scheduler : str, optional
        Address of a Dask scheduler.
    workers : int, optional
        Processes of this machine; None: as many as there are GPUs, one where there is none.
    """

    resume: bool = False
    scheduler: str | None = None
    workers: int | None = None

    def check(self, output: Path | None) -> None:
        """Raise `InputError` where options for stores are given with another output."""
        if is_store(output):
            return
        for name in ("resume", "scheduler", "workers"):
            if getattr(self, name):
                raise InputError(f"--{name} is for outputs in a Zarr store: name one that ends in .zarr")
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
    say: Callable[[str], None],
    cancel: threading.Event,
) -> Result | None:
    """The result of a run out of core; None where the bundle or an option needs the image in memory, if that may be.

    Parameters
    ----------
    say : callable
        Told a line for the user, such as where a cluster's dashboard is.
    """
    from napari_mamba import io
    from napari_mamba.engine.stored.reading.needs import NeedsMemory
    from napari_mamba.engine.stored.run import check_stored, run_into

    try:
        check_stored(bundle, options)
    except NeedsMemory:
        if storing.asked or is_address(output):
            raise
        return None
    paths = (address_of(path) if is_address(path) else os.path.abspath(path) for path in inputs)
    source = io.Opener(tuple(paths), reading)  # of a name that other processes find, too
    with ExitStack() as stack:
        spread = _spread(storing, options, stack, say)
        how = {"resume": storing.resume, "overwrite": overwrite, "spread": spread}
        events = run_into(source, bundle, output, options, cancel, **how)  # type: ignore[arg-type]
        while True:
            try:
                tell(next(events))
            except StopIteration as end:
                return end.value


def _spread(storing: Storing, options: RunOptions, stack: ExitStack, say: Callable[[str], None]) -> Any:
    """Other processes that compute, if they were asked for or there are several GPUs; None: this one."""
    cluster = joined(storing.scheduler, storing.workers, options.device, stack, say)
    if cluster is None:
        return None
    from napari_mamba.cluster import SpreadJobs

    return SpreadJobs(cluster)


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
