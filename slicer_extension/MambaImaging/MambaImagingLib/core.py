"""A run from nodes to nodes: export, compute in some place, bring back. No widget, and nothing that waits."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .asking import Report, Request
from .compute.following import CaseOutcome, Follower, Outcome
from .compute.jobs import Case, Job, Options, output_name
from .compute.runners import Runner
from .nodes import regions, results, segmentations, sequences, volumes
from .nodes.results import Placed

PREFIX = "mamba-imaging-"


class Run:
    """One run. Call `poll` a few times a second until it gives the report."""

    def __init__(self, request: Request, runner: Runner, temporary: Path | None = None):
        self.request, self.runner = request, runner
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporary))
        self.notes: list[str] = []
        self._stopped = False

    @property
    def follower(self) -> Follower:
        """Progress, stage, time left and log."""
        return self.runner.follower

    def start(self) -> None:
        """Write the volumes and begin.

        Raises
        ------
        volumes.Unusable, ValueError
            If a node cannot be used; the message is a sentence for the user.
        OSError
            If a file cannot be written or the process not started.
        """
        try:
            self.runner.start(self._job())
        except BaseException:
            self.close()
            raise

    def _job(self) -> Job:
        request, cases, resample = self.request, [], False
        names = request.wanted.outputs(request.bundle.task)
        for number, nodes in enumerate(request.cases):
            folder = self.folder / str(number)
            folder.mkdir()
            paths, differ, notes = volumes.export_case(nodes, folder)
            resample = resample or differ
            self.notes += [note for note in notes if note not in self.notes]
            outputs = {name: folder / output_name(name, request.bundle.task) for name in names}
            region = None
            if request.region is not None:
                region = regions.box_of(request.region, request.sequence_of or nodes[0])
            cases.append(Case(self._name(number), tuple(paths), outputs, region))
        options = request.options
        if resample:
            options = Options(**{**vars(options), "resample_channels": True})
        return Job(request.bundle.name, tuple(cases), options, self.folder)

    def _name(self, number: int) -> str:
        nodes = self.request.cases[number]
        if self.request.sequence_of is not None:
            return f"{self.request.sequence_of.GetName()} {number}"
        return nodes[0].GetName() or f"case {number}"

    def poll(self) -> Report | None:
        """The report once the run is over and its results are in the scene; None before."""
        outcome = None if self._stopped else self.runner.poll()
        if outcome is None:
            return None
        try:
            return self._report(outcome)
        finally:
            self.close()

    def _report(self, outcome: Outcome) -> Report:
        report = Report([], [], list(self.notes), outcome.error, outcome.cancelled, outcome.log)
        if outcome.cancelled or (outcome.error and not outcome.done):
            return report
        frames: list[tuple[str, Any]] = []
        for case in outcome.cases:
            if case.result is None:
                report.failed.append(f"{case.name}: {case.error or 'no result'}.")
                continue
            try:
                placed = self._place(case)
            except (OSError, ValueError) as error:
                report.failed.append(f"{case.name}: {error}.")
                continue
            report.placed.append(placed)
            report.notes += placed.notes
            if self.request.sequence_of is not None and placed.main is not None:
                frames.append((str(case.number), placed.main))
        self._collect(frames, report)
        return report

    def _place(self, case: CaseOutcome) -> Placed:
        request = self.request
        reference = request.sequence_of or request.cases[case.number][0]
        if reference.GetScene() is None:
            raise ValueError("its input volume is no longer in the scene")
        placed = results.place(case, reference, request.bundle.name, request.bundle.task, request.wanted)
        if request.surfaces and placed.main is not None and placed.main.IsA("vtkMRMLSegmentationNode"):
            for _ in segmentations.surfaces(placed.main):
                self.breathe()
        return placed

    def breathe(self) -> None:
        """Called between two surfaces; the widget lets the application handle events here."""

    def _collect(self, frames: list[tuple[str, Any]], report: Report) -> None:
        volume = self.request.sequence_of
        if volume is None or not frames:
            return
        values = [value for value, _ in sequences.frames_of(volume)]
        pairs = [(values[int(number)], node) for number, node in frames]
        report.sequence = sequences.collect(f"{volume.GetName()} {self.request.bundle.name}", volume, pairs)
        for placed in report.placed:
            placed.nodes = [node for node in placed.nodes if node is not placed.main]
            placed.main = None

    def cancel(self) -> None:
        """Ask to stop; `poll` then gives a cancelled report, and nothing enters the scene."""
        self.runner.cancel()

    def close(self) -> None:
        """End at once, and remove the run's files. Safe to call twice."""
        self._stopped = True
        self.runner.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def clean_up(temporary: Path | None = None, older_than_seconds: float = 86400.0) -> None:
    """Remove folders of runs that a crash of the application left behind."""
    root = Path(temporary or tempfile.gettempdir())
    for folder in root.glob(PREFIX + "*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > older_than_seconds:
                shutil.rmtree(folder, ignore_errors=True)


class Core:
    """Starts runs and brings them to their end; the module's logic is one of these.

    Parameters
    ----------
    make_runner : callable
        A new `Runner` for the place that is chosen.
    temporary : callable, optional
        The folder for temporary files.
    """

    def __init__(self, make_runner: Callable[[], Runner], temporary: Callable[[], Path | None] = lambda: None):
        self.make_runner, self.temporary = make_runner, temporary
        self.run: Run | None = None
        self.on_progress: Callable[[Follower], None] = lambda follower: None
        self.on_end: Callable[[Report], None] = lambda report: None
        self.breathe: Callable[[], None] = lambda: None

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self.run is not None

    def start(
        self,
        request: Request,
        on_progress: Callable[[Follower], None] | None = None,
        on_end: Callable[[Report], None] | None = None,
    ) -> None:
        """Begin a run; `poll` carries it on."""
        if self.run is not None:
            raise volumes.Unusable("a run goes on: wait for it, or cancel it")
        run = Run(request, self.make_runner(), self.temporary())
        run.breathe = self.breathe
        run.start()
        self.run = run
        self.on_progress = on_progress or (lambda follower: None)
        self.on_end = on_end or (lambda report: None)

    def poll(self) -> bool:
        """Take in what came; returns whether the run goes on. Calls the callbacks."""
        if self.run is None:
            return False
        run = self.run
        report = run.poll()
        if self.run is not run:  # closed by a callback
            return False
        self.on_progress(run.follower)
        if report is None:
            return True
        self.run = None
        self.on_end(report)
        return False

    def wait(self, request: Request, sleep: Callable[[float], None] = time.sleep) -> Report:
        """Run to the end, for scripts."""
        reports: list[Report] = []
        self.start(request, on_end=reports.append)
        while self.poll():
            self.breathe()
            sleep(0.05)
        return reports[0]

    def cancel(self) -> None:
        """Ask the run to stop."""
        if self.run is not None:
            self.run.cancel()

    def stop(self) -> None:
        """End at once without a report: the scene is closed, the module reloaded, the application quits."""
        if self.run is not None:
            run, self.run = self.run, None
            run.close()
