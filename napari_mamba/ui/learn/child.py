"""The command `napari-mamba adapt` in a process of its own: its events are read in a thread. No Qt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Event = dict[str, Any]
_LONGEST_LINE = 1 << 20


class Child:
    """A training in another process, so that nothing in the window waits and what is learnt survives the window.

    Parameters
    ----------
    words : sequence of str
        What follows `napari-mamba adapt`.
    on_event : callable
        Called with each event, in a thread. The last one is a "result" or an "error", whatever happens.
    """

    def __init__(self, words: Sequence[str], on_event: Callable[[Event], Any]):
        self._on_event = on_event
        self._log: deque[str] = deque(maxlen=20)
        self._over = False
        windows = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)} if os.name == "nt" else {}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "napari_mamba", "adapt", *words, "--events", "jsonl"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            **windows,  # type: ignore[arg-type]
        )
        threading.Thread(target=self._read_log, name="adapt's messages", daemon=True).start()
        threading.Thread(target=self._read, name="adapt's events", daemon=True).start()

    def stop(self) -> None:
        """Ask it to keep the best so far and to end."""
        with suppress(OSError, ValueError):
            self.process.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGINT)  # type: ignore[attr-defined]

    def kill(self) -> None:
        """End it at once; its checkpoint stays."""
        with suppress(OSError):
            self.process.kill()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline(_LONGEST_LINE):
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                self._over = event["event"] in ("result", "error")
                self._on_event(event)
        code = self.process.wait()
        if not self._over:
            self._on_event({"event": "error", "kind": "fault", "message": self._reason(code), "exit_code": code})

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._log.append(line.strip())

    def _reason(self, code: int) -> str:
        if code < 0:
            return "the system ended the training, most likely for want of memory: Resume goes on from its checkpoint"
        said = next((line for line in reversed(self._log) if line), f"it ended with the code {code}")
        return said[:300]
