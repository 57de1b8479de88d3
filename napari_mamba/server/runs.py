"""A run on the server: its state, its events with numbers, who is watching, and its child process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from napari_mamba.engine.progress.events import EVENTS_VERSION
from napari_mamba.server.requests import RunRequest
from napari_mamba.server.settings import CLUSTER
from napari_mamba.server.store import RunFiles

UPLOADING, WAITING, RUNNING, OVER = "uploading", "waiting", "running", "over"
_KEPT_PROGRESS = 300
_LONGEST_LINE = 64 << 20
_SECONDS_TO_STOP = 3.0
_SECONDS_BETWEEN_SIGNS = 5.0


class ServerRun:
    """One run, from its request until it is deleted; in the queue "cluster" the scheduler's workers compute it."""

    def __init__(self, identity: str, request: RunRequest, files: RunFiles, scheduler: str = ""):
        self.id, self.request, self.files, self.scheduler = identity, request, files, scheduler
        self.state = UPLOADING
        self.device = ""
        self.cancelled = False
        self.seen = monotonic()
        self.uploading: set[str] = set()
        self._watchers = 0
        self._events: list[tuple[int, str, bool]] = []
        self._next = 1
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._log: deque[str] = deque(maxlen=60)

    # ---- events

    def tell(self, event: str, **fields: Any) -> None:
        """Add an event for the clients."""
        self._add({"version": EVENTS_VERSION, "event": event, **fields})

    def _add(self, event: dict[str, Any]) -> None:
        transient = event["event"] in ("progress", "queued")
        self._events.append((self._next, json.dumps(event, ensure_ascii=True), transient))
        self._next += 1
        if transient and sum(one[2] for one in self._events[-2 * _KEPT_PROGRESS :]) > _KEPT_PROGRESS:
            oldest = next(i for i, one in enumerate(self._events) if one[2])
            del self._events[oldest]
        self._changed.set()

    async def events(self, after: int) -> AsyncIterator[str]:
        """Server-sent events beyond the number `after`, until the run is over; a comment is a sign of life."""
        with self.watched():
            while True:
                self._changed.clear()
                for number, line, _ in [one for one in self._events if one[0] > after]:
                    after = number
                    yield f"id: {number}\ndata: {line}\n\n"
                if self.state == OVER and after >= self._next - 1:
                    return
                if after < self._next - 1:  # came while the last ones were sent, or another reader took the sign
                    continue
                try:
                    await asyncio.wait_for(self._changed.wait(), _SECONDS_BETWEEN_SIGNS)
                except TimeoutError:
                    yield ": still here\n\n"

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While somebody reads the events or uploads, the client is there."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1
            self.seen = monotonic()

    def gone_for(self) -> float:
        """Seconds since the client was there."""
        return 0.0 if self._watchers else monotonic() - self.seen

    # ---- the child process

    async def compute(self) -> None:
        """Run the command to its end; afterwards the run is over, whatever happened."""
        self.state = RUNNING
        try:
            if not self.cancelled:
                await self._run_child()
        except OSError as error:
            self.tell("error", kind="fault", message=f"the server could not start the run ({error.strerror})")
        finally:
            self._kill()
            self.finish()

    async def _run_child(self) -> None:
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "napari_mamba", *self._words()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=os.name != "nt",
        )
        assert process.stdout is not None
        assert process.stderr is not None
        log = asyncio.create_task(self._read_log(process.stderr))
        last = ""
        with suppress(ValueError):  # a line beyond the limit
            async for raw in process.stdout:
                last = self._take(raw) or last
                if last == self._last_word:
                    break
        if last != self._last_word and not self.cancelled:
            code = await process.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(log), 1.0)
            self._tell_failure(code, last)
        log.cancel()

    @property
    def _last_word(self) -> str:
        """The event after which a run that went well says nothing more."""
        return "end" if self.request.explain is None else "result"

    def _words(self) -> list[str]:
        request, always = self.request, ["--events", "jsonl", "--overwrite"]
        device = "auto" if self.device == CLUSTER else self.device
        if request.explain is None:
            cases = ["run", request.bundle, "--cases", str(self.files.write_cases())]
            spread = [f"--scheduler={self.scheduler}"] if self.device == CLUSTER else []
            return [*cases, *always, *spread, *request.options.words(device)]
        inputs = [str(self.files.input(0, channel)) for channel in range(len(request.cases[0].inputs))]
        maps = ["--output", str(self.files.maps_folder)]
        return ["explain", request.bundle, *inputs, *maps, *always, *request.explain.words(device)]

    def _take(self, raw: bytes) -> str:
        """Hand on an event without the server's paths; returns its kind."""
        try:
            event = json.loads(raw)
            kind = str(event["event"])
        except (ValueError, TypeError, KeyError):
            return ""
        if kind == "result":
            outputs = {} if self.request.explain is not None else event.get("outputs") or {}
            event["outputs"] = {key: "output" if key in ("labels", "image") else key for key in outputs}
            event.pop("inputs", None)
        if kind == "map":
            self.files.maps.append(str(event.pop("path", "")))
            event["number"] = len(self.files.maps) - 1
        event = self._clean(event)
        if not (self.cancelled and kind in ("error", "result")):
            self._add(event)
        return kind

    def _tell_failure(self, code: int, last: str) -> None:
        if last == "error":
            return
        for line in list(self._log)[-20:]:
            self.tell("log", text=self._without_paths(line))
        how = "was killed, perhaps because memory ran out" if code == -9 else f"ended with the code {code}"
        self.tell("error", kind="fault", message=f"the run {how} and gave no result", exit_code=code)

    def _clean(self, value: Any) -> Any:
        """The same without the server's paths, wherever they stand."""
        if isinstance(value, str):
            return self._without_paths(value)
        if isinstance(value, list):
            return [self._clean(one) for one in value]
        if isinstance(value, dict):
            return {key: self._clean(one) for key, one in value.items()}
        return value

    def _without_paths(self, text: str) -> str:
        return text.replace(str(self.files.folder) + os.sep, "").replace(str(self.files.folder), "")

    async def _read_log(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                raw = await stream.readline()
            except ValueError:  # a line beyond the limit
                continue
            if not raw:
                return
            self._log.append(raw.decode("utf-8", "replace").rstrip())

    def cancel(self) -> None:
        """Stop: politely first, then by killing the process and its children."""
        if self.state == OVER or self.cancelled:
            return
        self.cancelled = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            asyncio.get_running_loop().call_later(_SECONDS_TO_STOP, self._kill)
        elif self.state != RUNNING:
            self.finish()

    def _kill(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if os.name == "nt":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self) -> None:
        """The run is over: inputs go, and the last event says how it ended."""
        if self.state == OVER:
            return
        if self.cancelled:
            self.tell("result", cancelled=True, outputs={})
            self.tell("end", done=0, failed=0, cancelled=len(self.request.cases))
        self.state = OVER
        self.files.delete_inputs()
        self._changed.set()

    def delete(self) -> None:
        """End it, and remove all its files."""
        self.cancel()
        self._kill()
        self.finish()
        self.files.delete()
