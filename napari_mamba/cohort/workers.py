"""Cases on the workers of a Dask cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mamba.cluster.on_worker import BundleReference, Outcome, outcome_of
from napari_mamba.cluster.spreading import spread
from napari_mamba.cohort.cases.case import Case
from napari_mamba.cohort.places import Places
from napari_mamba.cohort.row import FAILED, Row
from napari_mamba.cohort.work import CaseEnded, Work, sentence_of
from napari_mamba.errors import NapariMambaError, RunError

if TYPE_CHECKING:
    from napari_mamba.cluster import Cluster


def on_workers(
    work: Work, planned: Sequence[tuple[Case, Places]], cluster: Cluster
) -> Generator[tuple[int, CaseEnded], None, None]:
    """The cases on a cluster's workers, told as they end."""
    here = Path(os.path.abspath(work.target))
    rows = None if work.rows is None else Path(os.path.abspath(work.rows))
    light = replace(work, bundle=BundleReference.of(work.bundle), target=here, cancel=None, rows=rows)
    tasks = [(light, _absolute(case), place) for case, place in planned]
    with closing(spread(cluster, run_case, tasks, work.cancel)) as outcomes:
        for number, outcome in outcomes:
            case = planned[number][0]
            if outcome.error:
                row = Row(case.name, FAILED, inputs=tuple(map(str, case.inputs)), error=outcome.error)
                yield number, CaseEnded(row, error=RunError(outcome.error))
            else:
                yield number, outcome.value


def _absolute(case: Case) -> Case:
    """The case as a process with another current folder finds it."""
    return replace(case, inputs=tuple(Path(os.path.abspath(path)) for path in case.inputs))


def run_case(work: Work, case: Case, place: Places) -> Outcome:
    """One case in a worker, as an `Outcome`: its row, and its table without the images."""

    def ended() -> CaseEnded:
        reference = work.bundle
        bundle = reference.load() if isinstance(reference, BundleReference) else reference
        events = replace(work, bundle=bundle, cancel=threading.Event()).run(case, place)
        while True:
            try:
                next(events)
            except StopIteration as end:
                return _without_images(end.value)

    return outcome_of(ended)


def _without_images(ended: CaseEnded) -> CaseEnded:
    """What travels: a table and scores, and errors that other processes can make again."""
    result, error = ended.result, ended.error
    if result is not None:
        result = replace(result, labels=None, image=None, extra={})
    if error is not None:
        error = RunError(sentence_of(error)) if not isinstance(error, NapariMambaError) else type(error)(*error.args)
    return replace(ended, result=result, error=error)
