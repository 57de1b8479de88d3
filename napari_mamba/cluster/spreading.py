"""Tasks on the workers of a cluster: few more than there are workers at a time, and again where one was lost."""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_mamba.cluster.connecting import Cluster
from napari_mamba.cluster.on_worker import BundleReference, Outcome, do_task

if TYPE_CHECKING:
    from distributed import Client, Future

    from napari_mamba.engine.stored.work import Job

_AHEAD = 2
"""Tasks a worker that are with the scheduler at a time: one runs, one waits."""
_MOST_DEATHS = 5
"""Times that Dask may give a task up, each after several workers have died of it."""
_DIED = (
    "workers of the cluster die of this again and again, most likely for want of memory: give them more, or begin anew "
    "with a smaller --tile"
)
_LOOK = 1.0
"""Seconds after which it is looked whether the scheduler is still there."""


def spread(
    cluster: Cluster, function: Callable[..., Outcome], tasks: Sequence[tuple], cancel: threading.Event | None = None
) -> Generator[tuple[int, Outcome], None, None]:
    """Call a function with each of many tuples of arguments, on the cluster's workers.

    Parameters
    ----------
    cluster : Cluster
    function : callable
        Of a module that the workers have. It does no harm when it is called twice.
    tasks : sequence of tuple
    cancel : threading.Event, optional
        Set it to leave the rest.

    Yields
    ------
    number : int
        Of a task that ended.
    outcome : Outcome

    Raises
    ------
    RunError
        If the scheduler or all workers are gone for good.
    """
    waiting: deque[int] = deque(range(len(tasks)))
    flying: dict[Future, int] = {}
    deaths: Counter[int] = Counter()
    try:
        while (waiting or flying) and not (cancel is not None and cancel.is_set()):
            client, most = cluster.client, _AHEAD * cluster.workers
            while waiting and len(flying) < most:
                number = waiting.popleft()
                flying[client.submit(function, *tasks[number], pure=False)] = number
            for future in _ended(client, flying):
                number = flying.pop(future)
                outcome = _outcome(future)
                if isinstance(outcome, Outcome):
                    yield number, outcome
                    continue
                deaths[number] += outcome
                if deaths[number] > _MOST_DEATHS:
                    yield number, Outcome(error=_DIED, kind="OutOfMemoryError")
                else:
                    waiting.appendleft(number)
    finally:
        for future in flying:
            _forget(future)


def _ended(client: Client, flying: dict[Future, int]) -> list[Future]:
    """Futures that are no longer computed, after waiting a while for the first."""
    from distributed import wait
    from distributed.comm import CommClosedError

    try:
        with client.as_current():
            wait(list(flying), timeout=_LOOK, return_when="FIRST_COMPLETED")
    except (TimeoutError, OSError, CommClosedError):
        pass
    except Exception as error:  # futures of a scheduler that is gone
        if type(error).__name__ not in ("CancelledError", "FuturesCancelledError", "FutureCancelledError"):
            raise
    return [future for future in flying if future.status != "pending"]


def _outcome(future: Future) -> Outcome | int:
    """The outcome; a number where the task has to be done again: 1 if workers have died of it, else 0."""
    from distributed import KilledWorker

    if future.status == "finished":
        try:
            return future.result(timeout=30)
        except Exception:  # the worker that has the result went, or the scheduler
            return 0
    if future.status == "error":
        try:
            error = future.exception(timeout=30)
        except Exception:
            return 0
        if isinstance(error, KilledWorker):
            return 1
        said = " ".join(str(error).split())[:300]
        return Outcome(error=f"a worker stopped with an error ({type(error).__name__}: {said})", kind="RunError")
    return 0  # cancelled or lost, with the scheduler


def _forget(future: Future) -> None:
    try:
        future.cancel()
    except Exception:  # the scheduler may be gone
        return


class SpreadJobs:
    """Blocks of runs into stores on a cluster: `napari_mamba.engine.stored.run.Spread`.

    Parameters
    ----------
    cluster : Cluster

    Examples
    --------
    >>> with connect("tcp://head:8786") as cluster:  # doctest: +SKIP
    ...     events = run_into(source, bundle, "out.zarr", spread=SpreadJobs(cluster))
    """

    def __init__(self, cluster: Cluster):
        self.cluster = cluster

    @property
    def workers(self) -> int:
        """How many tasks are done at a time."""
        return self.cluster.workers

    def __call__(
        self, job: Job, tasks: Sequence[tuple[str, Any]]
    ) -> Generator[tuple[Any, dict[str, float]], None, None]:
        """Each task as it ends, with the seconds for which it computed, read and wrote."""
        reference = BundleReference.of(job.bundle)
        light = replace(job, bundle=None) if isinstance(reference, BundleReference) else job  # type: ignore[arg-type]
        token = uuid.uuid4().hex
        for number, outcome in spread(self.cluster, do_task, [(token, light, reference, task) for task in tasks]):
            yield tasks[number], outcome.result()
