"""A run from nodes to nodes: export, compute in some place, bring back. No widget, and nothing that waits."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .asking import Report
from .compute import beats
from .compute.following import CaseOutcome, Follower, Outcome
from .compute.jobs import Case, Job, Options, output_name
from .compute.look import LookJob
from .compute.runners import Runner
from .nodes import regions, results, segmentations, sequences, tables, volumes
from .nodes.results import Placed
from .nodes.scene import keep_provenance

PREFIX = "mamba-imaging-"


class Run:
    """One run. Call `poll` a few times a second until it gives the report."""

    def __init__(self, request: Any, runner: Runner, temporary: Path | None = None):
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

    def _job(self) -> Job | LookJob:
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
        if report.placed:
            self._curves(outcome, report)
        return report

    def _place(self, case: CaseOutcome) -> Placed:
        request = self.request
        reference = request.sequence_of or request.cases[case.number][0]
        if reference.GetScene() is None:
            raise ValueError("its input volume is no longer in the scene")
        wanted = request.wanted
        if request.sequence_of is not None:  # one table of all frames, below
            wanted = replace(wanted, table=False, plot=False)
        placed = results.place(case, reference, request.bundle.name, request.bundle.task, wanted)
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

    def _curves(self, outcome: Outcome, report: Report) -> None:
        """Of a sequence: the volume of each class over its frames, and what a beating heart's says."""
        volume, request = self.request.sequence_of, self.request
        done = [case for case in outcome.cases if case.result is not None and case.result.get("table")]
        if volume is None or not request.wanted.table or not done:
            return
        rows = [(case.result or {})["table"] for case in done]
        values = [value for value, _ in sequences.frames_of(volume)]
        source = sequences.browser_of(volume).GetSequenceNode(volume)
        name = f"{volume.GetName()} {request.bundle.name}"
        along, curves = source.GetIndexName() or "frame", beats.volumes_by_class(rows)
        frames = [values[case.number] for case in done]
        table = tables.frames_table(along, source.GetIndexUnit() or "", frames, curves, f"{name} volumes")
        made = [table]
        if request.wanted.plot:
            made.append(tables.line_plot(table, along, list(curves), "ml"))
        found = beats.beat(rows)
        if found:
            made.append(tables.beat_table(found, f"{name} beat"))
            name_, value, unit = found[-1]
            report.notes.append(f"{name_[:1].upper()}{name_[1:]} {value:.0f}{unit}.")
        for node in made:
            keep_provenance(node, done[0].result or {}, {"input_node": volume.GetName()})
        report.placed[-1].nodes += made

    def cancel(self) -> None:
        """Ask to stop; `poll` then gives a cancelled report, and nothing enters the scene."""
        self.runner.cancel()

    def close(self) -> None:
        """End at once, and remove the run's files. Safe to call twice."""
        self._stopped = True
        self.runner.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
