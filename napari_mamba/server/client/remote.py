"""A run on a server with the events and the result of a run here."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba import io
from napari_mamba.bundles.guards.columns import taken
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.result import ClassRow, Result
from napari_mamba.errors import NapariMambaError, RunError
from napari_mamba.server.client.connection import BrokenOff, Connection, Stopped

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.volume import Volume

SUFFIX = ".nrrd"  # its affine is text, with every digit
_ATTEMPTS, _BETWEEN_S = 6, 1.0
_TAKEN = ("precision", "tile", "spacing", "axis", "slice_profile", "overlap", "mirror")
_SWITCHES = ("clip", "deterministic", "seed", "batch_size", "replace_nonfinite")


def run(
    volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event, address: str, token: str = ""
) -> Generator[Progress, None, Result]:
    """Run a bundle on another computer; blocks as little as `engine.run` does, and has its events and result.

    Parameters
    ----------
    volume : Volume
        Sent as it is, without its name and its file's header.
    bundle : Bundle
        Its name is sent: the server's own bundle of that name runs.
    options : RunOptions
        `device` is left to the server.
    cancel : threading.Event
        Ends it within a tenth of a second; the server is told to end and delete the run.
    address, token : str
        Of the server.

    Raises
    ------
    RunError
        If the server refuses, fails or cannot be reached.

    Examples
    --------
    >>> events = run(volume, bundle, RunOptions(), threading.Event(), "http://127.0.0.1:8471")  # doctest: +SKIP
    """
    body = request_of(volume, bundle, options)
    with tempfile.TemporaryDirectory(prefix="napari-mamba-") as folder:
        work = _Work(volume, bundle, body, Path(folder), Connection(address, token, cancel.is_set))
        thread = threading.Thread(target=work.go, name="remote run", daemon=True)
        thread.start()
        try:
            while True:
                if cancel.is_set():
                    return Result(cancelled=True)
                try:
                    news = work.news.get(timeout=0.05)
                except queue.Empty:
                    continue
                if isinstance(news, Progress):
                    yield news
                elif isinstance(news, Result):
                    return news
                else:
                    raise news
        finally:
            cancelled = cancel.is_set()
            if cancelled or thread.is_alive():
                threading.Thread(target=work.forget, args=(Connection(address, token),), daemon=True).start()
            thread.join(0.2 if cancelled else 5.0)


def request_of(volume: Volume, bundle: Bundle, options: RunOptions) -> dict[str, Any]:
    """A run as the server takes it: no name of the image or of a file is in it, and of a row what the bundle takes."""
    plain = RunOptions()
    chosen: dict[str, Any] = {
        name: getattr(options, name) for name in _SWITCHES if getattr(options, name) != getattr(plain, name)
    }
    if options.strength != plain.strength:
        chosen["strength"] = 100 * options.strength  # in percent, as the command has it
    for name in _TAKEN:
        value = getattr(options, name)
        if value not in (None, "auto"):
            joined = ",".join(map(str, value)) if isinstance(value, tuple) else value
            chosen[name] = str(joined) if name in ("tile", "spacing") else joined
    outputs = {} if bundle.task == "classification" else {"output": SUFFIX}
    outputs |= {name: SUFFIX for name in ("probabilities", "uncertainty", "residual") if getattr(options, name)}
    case: dict[str, Any] = {"name": "image", "inputs": [SUFFIX] * volume.channels, "outputs": outputs}
    if options.region is not None:
        case["region"] = list(options.region)
    if options.row is not None:
        case["row"] = taken(bundle, options.row)
    return {"bundle": bundle.name, "cases": [case], "options": chosen}


class _Work:
    """What a thread does for one run; `news` are events, and at the end a result or an exception."""

    def __init__(self, volume: Volume, bundle: Bundle, body: dict[str, Any], folder: Path, connection: Connection):
        self._volume, self._bundle, self._body = volume, bundle, body
        self._folder, self._connection = folder, connection
        self._run = ""
        self.news: queue.SimpleQueue[Progress | Result | Exception] = queue.SimpleQueue()

    def go(self) -> None:
        """All of it."""
        try:
            self._run = str(self._connection.ask("POST", "/v1/runs", self._body)["id"])
            self._send()
            self._connection.ask("POST", f"/v1/runs/{self._run}/start")
            event = self._follow()
            result = self._fetch(event)
            self.forget(self._connection)
            self.news.put(result)
        except Stopped:
            return
        except NapariMambaError as error:
            self.forget(self._connection)
            self.news.put(error)
        except OSError as error:
            self.news.put(RunError(f"a file of the run cannot be written or read ({error.strerror or error})"))
        except Exception as error:  # whatever the server answered: a thread must not end without a word
            self.news.put(RunError(f"the server's answer cannot be read ({type(error).__name__}): is it up to date?"))

    def forget(self, connection: Connection) -> None:
        """End and delete the run there; where that fails, the server does so after its time-out."""
        run, self._run = self._run, ""
        if run:
            with suppress(NapariMambaError, Stopped):
                connection.ask("DELETE", f"/v1/runs/{run}")

    def _send(self) -> None:
        channels = self._volume.channels
        for channel in range(channels):
            self.news.put(Progress("sending", channel, channels))
            single = self._volume.with_data(np.asarray(self._volume.data[channel : channel + 1]), (), "image")
            path = io.write(single, self._folder / f"{channel}{SUFFIX}")
            self._connection.upload(self._run, 0, channel, path)
            path.unlink()

    def _follow(self) -> dict[str, Any]:
        """Hand on events until the last one, over connections that break off; returns the result's event."""
        after, failures = 0, 0
        result: dict[str, Any] | None = None
        log = ""
        while True:
            try:
                for number, event in self._connection.events(self._run, after):
                    after, failures = number, 0
                    kind = event.get("event")
                    if kind == "error":
                        raise RunError(str(event.get("message") or "the run failed on the server"))
                    if kind == "result":
                        result = event
                    elif kind == "log":
                        log = str(event.get("text") or "")
                    elif (progress := progress_of(event)) is not None:
                        self.news.put(progress)
                break
            except BrokenOff:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise
                time.sleep(_BETWEEN_S)
        if result is None or result.get("cancelled"):
            last = log.strip().splitlines()[-1][:200] if log.strip() else "look at its log"
            raise RunError(f"the run ended on the server without a result: {last}")
        return result

    def _fetch(self, event: dict[str, Any]) -> Result:
        outputs = dict(event.get("outputs") or {})
        files: dict[str, Volume] = {}
        wanted = self._body["cases"][0]["outputs"]
        for number, (kind, name) in enumerate(outputs.items()):
            self.news.put(Progress("fetching", number, len(outputs)))
            if name in wanted:
                path = self._folder / f"{name}{SUFFIX}"
                self._connection.download(self._run, 0, name, path)
                files[kind] = self._read(path)
        return result_of(event, files, self._bundle, self._connection.address)

    def _read(self, path: Path) -> Volume:
        """An answer, with its voxels in memory: the folder goes when the run is over."""
        read = io.read(path)
        read = read.with_data(np.array(read.data), read.channel_names, self._volume.name)
        if read.shape != self._volume.shape:
            return read  # on a finer grid
        return self._volume.with_data(read.data, read.channel_names)


def progress_of(event: dict[str, Any]) -> Progress | None:
    """A server's event as the engine would have told it; None for those that say nothing of progress."""
    kind = event.get("event")
    if kind == "queued":
        place = int(event.get("place") or 0)
        before = f"{place} {'run' if place == 1 else 'runs'} before this one" if place else ""
        return Progress("waiting", 0, place, message=before)
    if kind == "warning":
        return Progress("measuring", 0, 0, message=str(event.get("message", "")), warning=True)
    if kind != "progress":
        return None
    left = event.get("seconds_left")
    return Progress(
        str(event.get("stage", "")),
        int(event.get("done") or 0),
        int(event.get("total") or 0),
        float(left) if left is not None else None,
        str(event.get("message") or ""),
    )


def result_of(event: dict[str, Any], files: dict[str, Volume], bundle: Bundle, address: str) -> Result:
    """A result's event and the downloaded volumes as the engine's result."""
    known = {field.name for field in fields(ClassRow)}
    rows = []
    for entry in event.get("table") or []:
        row = {key: value for key, value in entry.items() if key in known}
        row["mean_intensities"] = tuple(row.get("mean_intensities") or ())
        rows.append(ClassRow(**row))
    scores = event.get("scores") or None
    extra: dict[str, Volume] = {
        name: files[name] for name in ("probabilities", "uncertainty", "residual") if name in files
    }
    if "where" in files or (bundle.task == "classification" and "uncertainty" in extra):
        where = files.get("where") or extra.pop("uncertainty")
        likeliest = max(scores, key=scores.get) if scores else "the class"  # type: ignore[arg-type]
        extra["where"] = where.with_data(where.data, (f"evidence for {likeliest}",))
    provenance = dict(event.get("provenance") or {})
    provenance["server"] = address
    warnings = [str(one) for one in event.get("warnings") or []]
    there = str((provenance.get("bundle") or {}).get("version", bundle.version))
    if there != bundle.version:
        warnings.append(f"The server ran version {there} of {bundle.name}; this computer has {bundle.version}.")
    labels = files.get("labels")
    if labels is not None:
        labels = labels.with_data(_unsigned(np.asarray(labels.data)), ("labels",))
    return Result(labels, files.get("image"), scores, rows, provenance, warnings, False, extra)


def _unsigned(data: np.ndarray) -> np.ndarray:
    highest = int(data.max(initial=0))
    return data.astype(np.uint8 if highest < 256 else np.uint16)
