"""A connection to a Dask scheduler, or to processes of this machine that are started for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from napari_mamba import __version__
from napari_mamba.cluster.on_worker import facts
from napari_mamba.errors import InputError, RunError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 300.0
"""Seconds for which a scheduler that is gone, or a cluster without workers, is waited for."""
_CONNECT = "10s"
_OF_WORKERS = {
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",
    # one that starts again on a busy machine is else given up after 30 s, and never comes back
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "300s",
}


class Cluster:
    """A client of a scheduler, which is connected again where the scheduler was restarted.

    Parameters
    ----------
    client : distributed.Client
    address : str
        Of the scheduler; empty where it is one of this process.
    patience : float
        Seconds to wait for a scheduler that is gone, and for workers.
    """

    def __init__(self, client: Client, address: str = "", patience: float = PATIENCE):
        self._client, self.address, self.patience = client, address, patience

    @property
    def client(self) -> Client:
        """The client; a new one where the connection was lost for good.

        Raises
        ------
        RunError
            If the scheduler does not come back.
        """
        until = monotonic() + self.patience
        while self._client.status != "running":
            if not self.address or monotonic() > until:
                raise RunError(
                    f"the scheduler {self.address or 'of this machine'} is gone: start it again, and go on with "
                    "--resume"
                )
            if self._client.status == "closed":
                try:
                    self._client = _client(self.address)
                    continue
                except OSError:
                    pass
            sleep(0.5)
        return self._client

    @property
    def workers(self) -> int:
        """How many there are now; waits for the first.

        Raises
        ------
        RunError
            If none comes.
        """
        until = monotonic() + self.patience
        while True:
            found = len(self.client.scheduler_info(n_workers=-1)["workers"])
            if found:
                return found
            if monotonic() > until:
                raise RunError(
                    f"the scheduler {self.address} has no workers: start some by dask worker {self.address}, and go on "
                    "with --resume"
                )
            sleep(0.5)

    @property
    def dashboard(self) -> str:
        """Link of the scheduler's dashboard."""
        return str(self._client.dashboard_link)


@contextmanager
def connect(scheduler: str | None = None, workers: int | None = None, patience: float = PATIENCE) -> Iterator[Cluster]:
    """A connection to a Dask scheduler, or to new processes of this machine.

    Parameters
    ----------
    scheduler : str, optional
        Its address, tcp://host:8786.
    workers : int, optional
        Without a scheduler: processes to start; by default one a GPU, or one.
    patience : float
        See `Cluster`.

    Raises
    ------
    InputError
        If Dask is not installed, nobody answers at the address, or the cluster runs other versions.

    Examples
    --------
    >>> with connect(workers=2) as cluster:  # doctest: +SKIP
    ...     cluster.workers
    2
    """
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise InputError("more than one process needs Dask: pip install 'napari-mamba[dask]'") from error
    if scheduler is None:
        with _processes(workers or max(gpus(), 1)) as cluster:
            yield cluster
        return
    try:
        client = _client(scheduler)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler}: start one by dask scheduler, and check the address"
        ) from error
    found = Cluster(client, scheduler, patience)
    try:
        _check_scheduler(client, scheduler)
        if found.workers:
            _check_workers(found.client, scheduler)
        yield found
    finally:
        _quietly_closed(found)


def gpus() -> int:
    """CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _client(address: str) -> Client:
    from distributed import Client

    return Client(address, timeout=_CONNECT, set_as_default=False)


def _quietly_closed(cluster: Cluster) -> None:
    try:
        cluster._client.close(timeout=5)
    except Exception:  # the scheduler may be gone, and the work is done
        return


@contextmanager
def _processes(count: int) -> Iterator[Cluster]:
    """Workers of this machine: each has a GPU where there are any, and its share of the cores."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    cores, cards = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, gpus()
    threads = str(max(cores // count, 1))
    workers = {}
    for number in range(count):
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **_OF_WORKERS}
        if cards:
            environment["CUDA_VISIBLE_DEVICES"] = str(number % cards)
        options = {"nthreads": 1, "memory_limit": 0, "env": environment, "dashboard": False}
        workers[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": ":0"}}
    early = "distributed.nanny.pre-spawn-environ"  # what distributed looks at when it is imported there
    with dask.config.set({early: {**dask.config.get(early, {}), **_OF_WORKERS}}):
        cluster: Any = SpecCluster(scheduler=scheduler, workers=workers, silence_logs=50)
    try:
        with Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=PATIENCE)
            yield Cluster(client)
    finally:
        cluster.close(timeout=10)


def _check_scheduler(client: Client, address: str) -> None:
    versions: Any = client.get_versions(check=False)
    ours = versions["client"]["packages"].get("distributed")
    theirs = (versions.get("scheduler") or {}).get("packages", {}).get("distributed")
    if ours != theirs:
        raise InputError(
            f"the scheduler {address} runs distributed {theirs}, this is {ours}: install the same version on both"
        )


def _check_workers(client: Client, address: str) -> None:
    """Raise `InputError` where workers lack this package, or have another version."""
    try:
        found = client.run(facts, on_error="return")
    except Exception as error:
        raise InputError(f"the workers of {address} do not answer ({type(error).__name__}): restart them") from error
    for worker, one in found.items():
        if isinstance(one, Exception):
            raise InputError(
                f"the worker {worker} cannot run napari-mamba ({type(one).__name__}): install napari-mamba[dask] "
                f"{__version__} there"
            )
        if one["napari_mamba"] != __version__:
            raise InputError(
                f"the worker {worker} has napari-mamba {one['napari_mamba']}, this is {__version__}: install the same "
                "version on all"
            )
