"""The batch: one generator over the cases, for every front end."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba import __version__
from napari_mamba.cohort.cases import bids
from napari_mamba.cohort.cases.case import Case, check_names
from napari_mamba.cohort.places import Places, all_places, batch_folder, check_free, locked
from napari_mamba.cohort.row import Row, write_tables
from napari_mamba.cohort.summary.page import write_summary
from napari_mamba.cohort.work import CaseEnded, Work, write_text
from napari_mamba.engine import Progress, RunOptions
from napari_mamba.engine.device import choose_device

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.cluster import Cluster


@dataclass(frozen=True)
class CaseStarted:
    """A case begins; `number` counts from 0."""

    number: int
    count: int
    name: str


def run_batch(
    cases: Sequence[Case],
    bundle: Bundle,
    folder: Path,
    options: RunOptions | None = None,
    *,
    reading: dict[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    as_bids: bool = False,
    cancel: threading.Event | None = None,
    rows: Path | None = None,
    cluster: Cluster | None = None,
) -> Generator[CaseStarted | Progress | CaseEnded, None, list[Row]]:
    """Run a bundle on each case, and keep a table of them.

    Parameters
    ----------
    cases : sequence of Case
        From `find_cases`.
    bundle : Bundle
        From `bundles.kept`, so that its weights are read once.
    folder : Path
        Made if need be.
    options : RunOptions, optional
    reading : dict, optional
        What `io.read` takes besides, for every case.
    resume : bool
        Leave out cases that are finished, whose input, bundle and options are the same.
    overwrite : bool
        Begin anew in a folder that holds a batch.
    as_bids : bool
        Write BIDS derivatives, in `folder`/derivatives/napari-mamba.
    cancel : threading.Event, optional
        Set it to stop; what is finished stays.
    rows : Path, optional
        A CSV with a row for each case, of bundles that take one beside the image: see `napari_mamba.io.row_of`.
    cluster : Cluster, optional
        Whose workers run the cases, several at a time; they see the inputs and the folder under the same names.

    Yields
    ------
    CaseStarted, Progress or CaseEnded
        The table is on disk when `CaseEnded` comes.

    Returns
    -------
    list of Row
        Of the cases that ended.

    Raises
    ------
    InputError
        Before anything runs: if two cases have one name or would write one file, or the device is not there.
    OutputError
        If another batch runs in the folder, it holds one, or the table cannot be written.

    Examples
    --------
    >>> for event in run_batch(cases, bundle, Path("out")):  # doctest: +SKIP
    ...     print(event)
    """
    check_names(cases)
    target = batch_folder(Path(folder), as_bids=as_bids)
    where = all_places(list(cases), bundle, as_bids=as_bids)
    options = options or RunOptions()
    choose_device(options.device, options.precision)  # a typing error in it would fail every case, one after the other
    with locked(target):
        check_free(target, resume=resume, overwrite=overwrite)
        work = Work(bundle, target, options, reading or {}, resume, cancel or threading.Event(), rows)
        if as_bids:
            _describe(bundle, target)
        finished: dict[int, Row] = {}
        planned = list(zip(cases, where, strict=True))
        with closing(_events(work, planned, cluster)) as events:
            for number, event in events:
                if isinstance(event, CaseEnded):
                    finished[number] = event.row
                    write_tables([finished[i] for i in sorted(finished)], target)
                    if cluster is not None:
                        yield CaseStarted(number, len(cases), event.row.name)
                yield event
        ordered = [finished[i] for i in sorted(finished)]
        write_summary(ordered, target, bundle)
        return ordered


Numbered = Generator[tuple[int, CaseStarted | Progress | CaseEnded], None, None]


def _events(work: Work, planned: Sequence[tuple[Case, Places]], cluster: Cluster | None) -> Numbered:
    if cluster is None:
        yield from _here(work, planned)
        return
    from napari_mamba.cohort.workers import on_workers

    yield from on_workers(work, planned, cluster)


def _here(work: Work, planned: Sequence[tuple[Case, Places]]) -> Numbered:
    """The cases one after the other, in this process."""
    for number, (case, place) in enumerate(planned):
        if work.cancel.is_set():
            return
        yield number, CaseStarted(number, len(planned), case.name)
        events = work.run(case, place)
        while True:
            try:
                yield number, next(events)
            except StopIteration as end:
                if end.value is None:
                    return
                yield number, end.value
                break


def _describe(bundle: Bundle, target: Path) -> None:
    write_text(target / "dataset_description.json", bids.description(bundle, __version__))
    ignored = ["table.csv", "table.parquet", "summary.html", ".batch.lock", "**/*_thumbnail.jpg", "**/*_scores.json"]
    write_text(target / ".bidsignore", "\n".join(ignored) + "\n")
