"""A process with its own group whose output is read by threads: nothing here waits, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

WINDOWS = os.name == "nt"
_SECONDS_TO_REAP = 0.05


class Process:
    """A started process.

    Parameters
    ----------
    command : sequence of str
    environment : mapping, optional
        Whole environment; that of this process by default.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        variables = dict(os.environ if environment is None else environment)
        variables.update(PYTHONUTF8="1", PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
        options = {"start_new_session": True}  # its own group: the whole tree can be ended
        if WINDOWS:
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        self._popen = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            **options,
        )
        self._out: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._err: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        pipes = ((self._popen.stdout, self._out), (self._popen.stderr, self._err))
        self._readers = [threading.Thread(target=_read, args=pair, daemon=True) for pair in pipes]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Of the process, and on POSIX of its group."""
        return self._popen.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._popen.poll()

    @property
    def read_out(self) -> bool:
        """Whether all that it wrote has been read."""
        return not any(reader.is_alive() for reader in self._readers)

    def output(self) -> list[bytes]:
        """Lines of stdout since the last call."""
        return _drained(self._out)

    def errors(self) -> list[str]:
        """Lines of stderr since the last call."""
        return [line.decode("utf-8", "replace") for line in _drained(self._err)]

    def ask_to_stop(self) -> None:
        """Ask it to stop cleanly; on Windows, where nobody can ask, kill it."""
        if WINDOWS:
            self.kill()
        elif self.code is None:
            _signal_group(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it and all it started. Safe to call twice."""
        if WINDOWS:
            if self.code is None:
                subprocess.run(
                    ["taskkill", "/F", "/T", "/PID", str(self.pid)],
                    capture_output=True,
                    check=False,
                    creationflags=subprocess.CREATE_NO_WINDOW,
                )
        else:
            _signal_group(self.pid, signal.SIGKILL)  # also after its own end: what it started may still run
        with contextlib.suppress(OSError):
            self._popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SECONDS_TO_REAP)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _read(pipe, lines: queue.SimpleQueue) -> None:
    with contextlib.suppress(ValueError, OSError), pipe:
        for line in pipe:
            lines.put(line)


def _drained(lines: queue.SimpleQueue) -> list:
    found = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(lines.get_nowait())
    return found


class Query:
    """A short command whose whole answer is wanted, such as `models --json`; polled, never waited for."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None):
        self._process = Process(command, environment)
        self._out: list[bytes] = []
        self._err: list[str] = []

    def poll(self) -> tuple[int, str, str] | None:
        """Exit code, stdout and stderr once it is over; None before."""
        self._out += self._process.output()
        self._err += self._process.errors()
        code = self._process.code
        if code is None or not self._process.read_out:
            return None
        self._out += self._process.output()
        self._err += self._process.errors()
        return code, b"".join(self._out).decode("utf-8", "replace"), "".join(self._err)

    def stop(self) -> None:
        """Give up."""
        self._process.kill()
