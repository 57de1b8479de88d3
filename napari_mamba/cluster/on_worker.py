"""What runs in a worker: its image is opened and its network loaded once, for all blocks of a run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba import __version__
from napari_mamba.errors import BundleError, NapariMambaError, OutOfMemoryError, RunError

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.stored.work import Job, Work

_KEPT = 2
_works: OrderedDict[str, Work] = OrderedDict()
_bundles: dict[str, Bundle] = {}
_one_at_a_time = threading.RLock()
"""A worker with several threads has one device and one network all the same."""


def facts() -> dict[str, str]:
    """What a worker is, for the check at the start."""
    return {"napari_mamba": __version__}


@dataclass(frozen=True)
class BundleReference:
    """A bundle by its name or path, loaded where it is needed, once a process.

    Parameters
    ----------
    name : str
        As `bundles.load` takes it.
    sha256 : str
        That it has to have.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, bundle: Any) -> Any:
        """The reference; a bundle that lies nowhere stands for itself."""
        from napari_mamba.bundles.bundle import SHIPPED

        path = getattr(bundle, "path", None)
        if path is None or path == Path():
            return bundle
        name = bundle.name if SHIPPED in Path(path).parents else str(Path(path).absolute())
        return cls(name, bundle.sha256)

    def load(self) -> Bundle:
        """The bundle, which keeps its networks.

        Raises
        ------
        BundleError
            If this machine lacks it or has another one.
        """
        from napari_mamba import bundles

        with _one_at_a_time:
            if self.sha256 not in _bundles:
                try:
                    bundle = bundles.kept(bundles.load(self.name))
                except BundleError as error:
                    raise BundleError(
                        f"a worker lacks the bundle {self.name}: put it where all machines see it, or install it there"
                    ) from error
                if bundle.sha256 != self.sha256:
                    raise BundleError(f"a worker has another bundle {self.name}: install the same one on all machines")
                _bundles[self.sha256] = bundle
            return _bundles[self.sha256]


@dataclass(frozen=True)
class Outcome:
    """What a task gives back: a value, or the sentence of an error and its class's name."""

    value: Any = None
    error: str = ""
    kind: str = ""

    def result(self) -> Any:
        """The value; raises the error."""
        if not self.error:
            return self.value
        from napari_mamba import errors

        kind = getattr(errors, self.kind, RunError)
        raise (RunError if kind is errors.ChoiceError else kind)(self.error)


def outcome_of(call: Any, *arguments: Any) -> Outcome:
    """The outcome of a call: whatever it raises, in one sentence that travels."""
    from napari_mamba.engine.memory import is_out_of_memory

    try:
        return Outcome(call(*arguments))
    except NapariMambaError as error:
        return Outcome(error=str(error), kind=type(error).__name__)
    except Exception as error:
        if is_out_of_memory(error):
            return Outcome(error="a worker's memory ran out: give a smaller --tile", kind=OutOfMemoryError.__name__)
        said = " ".join(str(error).split())[:300]
        return Outcome(error=f"a worker stopped with an error ({type(error).__name__}: {said})", kind="RunError")


def do_task(token: str, job: Job, reference: Any, task: tuple[str, Any]) -> Outcome:
    """One task of a run into a store; the seconds for which it computed, read and wrote."""
    return outcome_of(_do, token, job, reference, task)


def _do(token: str, job: Job, reference: Any, task: tuple[str, Any]) -> dict[str, float]:
    kind, what = task
    with _one_at_a_time:
        work = _work(token, job, reference)
        if kind == "coarser":
            level, key, box, step = what
            if not work.journal.has(key):
                work.coarsen(level, key, box, step)
            return {}
        return _blocks(work, what)


def _blocks(work: Work, keys: list[str]) -> dict[str, float]:
    """Compute a column, less what a worker that was lost has finished of it."""
    seconds = {"computing": 0.0, "reading": 0.0, "writing": 0.0}
    missing = [key for key in keys if not work.journal.has(key)]
    assert work.job.layout is not None
    with work.writer() as writer:
        for column in work.job.layout.columns(missing):
            ticks = work.run(column, writer)
            while True:
                try:
                    next(ticks)
                except StopIteration as end:
                    seconds = {name: value + end.value[name] for name, value in seconds.items()}
                    break
        since = perf_counter()
        writer.finish()
        seconds["writing"] += perf_counter() - since
    return seconds


def _work(token: str, job: Job, reference: Any) -> Work:
    from napari_mamba.engine.stored.work import Work

    if token not in _works:
        bundle = reference.load() if isinstance(reference, BundleReference) else reference
        _works[token] = Work(replace(job, bundle=bundle))
        while len(_works) > _KEPT:
            _works.popitem(last=False)
    _works.move_to_end(token)
    return _works[token]
