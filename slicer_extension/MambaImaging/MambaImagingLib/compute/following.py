"""From the events of a run (docs/events.md of napari-mamba) to what a user sees and what is left at its end."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EVENTS_VERSION = 2
_KNOWN = frozenset({"queued", "case", "progress", "warning", "map", "list", "result", "error", "end"})
_LOG_LINES = 400
_LONGEST_LINE = 256 << 20


def parse(raw: bytes) -> dict[str, Any] | None:
    """One event, or None: what a library printed on stdout is no event, and neither is a later kind of line."""
    if len(raw) > _LONGEST_LINE or not raw.lstrip().startswith(b"{"):
        return None
    try:
        event = json.loads(raw.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


@dataclass
class CaseOutcome:
    """How one case ended: a result, or a sentence."""

    number: int
    name: str
    result: dict[str, Any] | None = None
    error: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """How a run ended. `error` is a sentence for the user; then, or if cancelled, nothing goes into the scene."""

    cases: list[CaseOutcome] = field(default_factory=list)
    cancelled: bool = False
    error: str = ""
    log: str = ""
    maps: list[dict[str, Any]] = field(default_factory=list)
    listed: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> list[CaseOutcome]:
        """The cases with a result."""
        return [] if self.cancelled else [case for case in self.cases if case.result is not None]


class Follower:
    """Takes events and lines of the log in their order, and knows at any time what to show."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self.seconds_left: float | None = None
        self.stage = ""
        self.message = ""
        self.place_in_queue: int | None = None
        self.count = 1
        self.cases: list[CaseOutcome] = []
        self.maps: list[dict[str, Any]] = []
        self.listed: dict[str, Any] = {}
        self.ended = False
        self.cancelled = False
        self.failed = ""
        self.log: deque[str] = deque(maxlen=_LOG_LINES)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event; unknown ones and unknown fields are passed over."""
        version = event.get("version", EVENTS_VERSION)
        if version != EVENTS_VERSION:
            older = isinstance(version, int) and version < EVENTS_VERSION
            what = "napari-mamba there" if older else "this extension"
            self.failed = self.failed or f"napari-mamba there speaks another version of its events: update {what}"
        elif event["event"] in _KNOWN:
            getattr(self, "_" + event["event"])(event)

    def add_log(self, line: str) -> None:
        """Take in a line of stderr, or of stdout that was no event."""
        self.log.append(line.rstrip("\r\n"))

    def _case_now(self) -> CaseOutcome:
        if not self.cases:
            self.cases.append(CaseOutcome(0, ""))
        return self.cases[-1]

    def _queued(self, event: Mapping[str, Any]) -> None:
        self.place_in_queue = int(event.get("place") or 0)
        self.stage = "waiting"

    def _case(self, event: Mapping[str, Any]) -> None:
        self.count = int(event.get("count") or 1)
        self.cases.append(CaseOutcome(int(event.get("case") or 0), str(event.get("name") or "")))

    def _progress(self, event: Mapping[str, Any]) -> None:
        self.place_in_queue = None
        self.fraction = max(self.fraction, min(float(event.get("fraction") or 0.0), 1.0))
        self.seconds_left = event.get("seconds_left")
        self.stage = str(event.get("stage") or "")
        if event.get("message"):
            self.message = str(event["message"])

    def _warning(self, event: Mapping[str, Any]) -> None:
        said, case = str(event.get("message") or ""), self._case_now()
        if said and said not in case.warnings:
            case.warnings.append(said)
            self.add_log(f"warning: {said}")

    def _map(self, event: Mapping[str, Any]) -> None:
        self.maps.append(dict(event))

    def _list(self, event: Mapping[str, Any]) -> None:
        self.listed = dict(event)

    def _result(self, event: Mapping[str, Any]) -> None:
        if event.get("cancelled"):
            self.cancelled = True
        else:
            self._case_now().result = dict(event)
        if "case" not in event:  # of a command with one image: its last line
            self.ended, self.fraction = True, 1.0

    def _error(self, event: Mapping[str, Any]) -> None:
        said = str(event.get("message") or "the run failed")
        if event.get("kind") == "cancelled":
            self.cancelled = True
        elif "case" in event:
            self._case_now().error = said
        else:
            self.failed = said

    def _end(self, event: Mapping[str, Any]) -> None:
        self.ended = True
        self.cancelled = self.cancelled or bool(event.get("cancelled"))
        self.fraction = 1.0

    def outcome(self, code: int | None = None) -> Outcome:
        """What is left when the process is gone (`code`), or has said its last word."""
        log = "\n".join(self.log)
        if self.cancelled:
            return Outcome(self.cases, cancelled=True, log=log)
        if self.failed:
            return Outcome(self.cases, error=self.failed, log=log)
        if not self.ended:
            return Outcome(self.cases, error=_unexpected_end(code, list(self.log)), log=log)
        return Outcome(self.cases, log=log, maps=self.maps, listed=self.listed)


def _unexpected_end(code: int | None, log: list[str]) -> str:
    """A sentence for a process that ended without a result."""
    if code is None:
        how = "stopped answering"
    elif code in (-9, 137):
        how = "was killed, perhaps because the computer's memory is full"
    elif code < 0:
        how = f"was stopped by signal {-code}"
    else:
        how = f"ended with the code {code}"
    last = next((line for line in reversed(log) if line.strip()), "")
    said = f". Its last words: {last[:300]}" if last else ""
    return f"napari-mamba {how} and gave no result{said}"
