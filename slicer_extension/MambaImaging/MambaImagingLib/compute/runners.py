"""One interface for every place where a run can be computed, and the runner of a local process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from .following import Follower, Outcome, parse
from .jobs import Job
from .look import LookJob
from .processes import Process

SECONDS_TO_STOP = 1.0
"""How long a run may take to stop cleanly before its process tree is killed."""


class Runner(Protocol):
    """A run in some place. Every method returns at once; `poll` is called a few times a second until it answers."""

    follower: Follower

    def start(self, job: Job | LookJob) -> None:
        """Begin; raises `OSError` if that is impossible."""

    def poll(self) -> Outcome | None:
        """Take in what came since the last call; what came of the run once it is over, None before."""

    def cancel(self) -> None:
        """Ask the run to stop; `poll` then answers with a cancelled outcome within two seconds."""

    def stop(self) -> None:
        """End everything now: the scene is closed, the module reloaded, the application quits."""


class LocalRunner:
    """The command in a process of its own.

    Parameters
    ----------
    command : sequence of str
        What stands before the command's arguments: `[python, "-m", "napari_mamba"]`.
    environment : mapping, optional
        Whole environment of the process.
    clock : callable
        Seconds, for tests.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.command, self.environment, self.clock = list(command), environment, clock
        self.follower = Follower()
        self._process: Process | None = None
        self._kill_at: float | None = None
        self._gone_since: float | None = None

    def start(self, job: Job | LookJob) -> None:
        self._process = Process([*self.command, *job.arguments()], self.environment)

    @property
    def pid(self) -> int | None:
        """Of the process, once started."""
        return self._process.pid if self._process else None

    def poll(self) -> Outcome | None:
        process = self._process
        if process is None:
            return None
        code, read_out = process.code, process.read_out  # before reading: what was written before the end is then read
        self._take_in(process)
        if self._kill_at is not None:
            return self._poll_cancelled(process, code)
        if self.follower.ended or self.follower.failed:  # the process takes seconds to go: the line counts
            process.kill()
            return self.follower.outcome(code)
        if code is None:
            return None
        if not read_out and not self._waited(SECONDS_TO_STOP):
            return None
        process.kill()  # its children, if it had any
        return self.follower.outcome(code)

    def _poll_cancelled(self, process: Process, code: int | None) -> Outcome | None:
        if code is None and self.clock() < self._kill_at:
            return None
        process.kill()
        self.follower.cancelled = True
        return self.follower.outcome(code)

    def _waited(self, seconds: float) -> bool:
        self._gone_since = self.clock() if self._gone_since is None else self._gone_since
        return self.clock() - self._gone_since > seconds

    def _take_in(self, process: Process) -> None:
        for raw in process.output():
            event = parse(raw)
            if event is None:
                self.follower.add_log(raw.decode("utf-8", "replace"))
            else:
                self.follower.add(event)
        for line in process.errors():
            self.follower.add_log(line)

    def cancel(self) -> None:
        if self._process is not None and self._kill_at is None:
            self._kill_at = self.clock() + SECONDS_TO_STOP
            self._process.ask_to_stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._kill_at = self._kill_at if self._kill_at is not None else self.clock()
