"""A look inside from nodes to nodes: one image, its maps."""

from __future__ import annotations

from pathlib import Path

from .asking import LookRequest, Report
from .compute.following import Outcome
from .compute.look import LookJob
from .nodes import geometry, maps, volumes
from .running import Run


class LookRun(Run):
    """One look; the same life as a run's."""

    request: LookRequest

    def _job(self) -> LookJob:
        request = self.request
        paths, _, notes = volumes.export_case(request.volumes, self.folder, one_grid=True)
        self.notes += notes
        look = request.look
        if request.point is not None:
            inside = geometry.between(None, request.volumes[0]).TransformPoint(request.point)
            look = type(look)(**{**vars(look), "world": tuple(float(value) for value in inside)})
        return LookJob(request.bundle.name, tuple(Path(path) for path in paths), look, request.options, self.folder)

    def _report(self, outcome: Outcome) -> Report:
        report = Report(notes=list(self.notes), error=outcome.error, cancelled=outcome.cancelled, log=outcome.log)
        report.listed = outcome.listed
        if outcome.cancelled or outcome.error or self.request.look.list_only:
            return report
        reference = self.request.volumes[0]
        if reference.GetScene() is None:
            report.error = "the volume that was looked at is no longer in the scene"
            return report
        (case,) = outcome.cases
        name = f"{reference.GetName()} {self.request.bundle.name}"
        try:
            placed = maps.place(outcome.maps, case.result or {}, reference, name)
        except (OSError, ValueError) as error:
            report.error = str(error)
            return report
        report.placed.append(placed)
        report.notes += placed.notes
        return report
