"""Starts runs and brings them to their end; the module's logic is one of these."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .asking import LookRequest, Report, Request
from .compute.following import Follower
from .compute.runners import Runner
from .looking import LookRun
from .nodes import volumes
from .running import PREFIX, Run


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
        request: Request | LookRequest,
        on_progress: Callable[[Follower], None] | None = None,
        on_end: Callable[[Report], None] | None = None,
    ) -> None:
        """Begin a run; `poll` carries it on."""
        if self.run is not None:
            raise volumes.Unusable("a run goes on: wait for it, or cancel it")
        kind = LookRun if isinstance(request, LookRequest) else Run
        run = kind(request, self.make_runner(), self.temporary())
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

    def wait(self, request: Request | LookRequest, sleep: Callable[[float], None] = time.sleep) -> Report:
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
