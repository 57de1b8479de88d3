"""A remote computer as a place: the same interface as a local process, with threads that do the waiting."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from .bundles import BundleInfo, read_bundles
from .client import Client, ServerError, Stopped, checked_address, is_this_computer
from .following import Follower, Outcome
from .jobs import Job
from .look import SUFFIXES, LookJob
from .places import Answer, Question
from .runners import Runner

_ATTEMPTS = 6
_SECONDS_BETWEEN = 1.0
_MAPS_WANTED = ("volume", "table")


class RemotePlace:
    """A server of `napari-mamba serve`.

    Parameters
    ----------
    address, token : str
    """

    def __init__(self, address: str, token: str = ""):
        self.address, self.token = checked_address(address), token

    def runner(self) -> Runner:
        return RemoteRunner(self.address, self.token)

    def _ask(self, path: str, reader: Callable[[Any], Any]) -> Question:
        return RemoteQuestion(lambda: reader(Client(self.address, self.token).ask("GET", path)))

    def ask_version(self) -> Question:
        return self._ask("/healthz", _version)

    def ask_bundles(self) -> Question:
        return self._ask("/v1/models", _bundles)

    def ask_devices(self) -> Question:
        return self._ask("/v1/devices", lambda answer: [str(one["device"]) for one in answer])


def _version(answer: Any) -> str:
    if not isinstance(answer, dict) or answer.get("service") != "napari-mamba":
        raise ServerError("there is no server of napari-mamba at this address")
    return str(answer["version"])


def _bundles(answer: Any) -> list[BundleInfo]:
    import json

    return read_bundles(json.dumps(answer))


class RemoteQuestion:
    """Something asked over the network, in a thread."""

    def __init__(self, work: Callable[[], Any]):
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._answers.put(Answer(work()))
        except ServerError as error:
            self._answers.put(Answer(error=str(error)))
        except Exception as error:  # whatever the answer held: a thread must not end without a word
            self._answers.put(Answer(error=f"the server's answer cannot be read ({type(error).__name__})"))

    def poll(self) -> Answer | None:
        with contextlib.suppress(queue.Empty):
            return self._answers.get_nowait()
        return None

    def stop(self) -> None:
        """The answer is not wanted any more; the thread ends by itself."""


class Consent:
    """Asked once per server, before data leave the computer.

    Parameters
    ----------
    ask : callable
        Shows a question and returns whether the user agrees.
    remembered : mutable mapping of str to bool
        Kept between sessions: in the application's settings, never in the scene.
    """

    def __init__(self, ask: Callable[[str], bool], remembered: MutableMapping[str, bool]):
        self._ask, self._remembered = ask, remembered

    def given(self, address: str) -> bool:
        """Whether data may be sent there."""
        address = checked_address(address)
        if is_this_computer(address) or self._remembered.get(address):
            return True
        plain = " The connection is not encrypted." if address.startswith("http:") else ""
        question = f"The volumes of this run are sent to {address} and computed there.{plain} Send them, now and later?"
        if self._ask(question):
            self._remembered[address] = True
            return True
        return False


class RemoteRunner:
    """A run on a server; see `runners.Runner`."""

    def __init__(self, address: str, token: str = ""):
        self.address, self.token = address, token
        self.follower = Follower()
        self._news: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._cancelled = False
        self._run = ""
        self._job: Job | LookJob | None = None
        self._failed = ""
        self._thread: threading.Thread | None = None

    def start(self, job: Job | LookJob) -> None:
        self._job = job
        self._thread = threading.Thread(target=self._work, args=(job,), daemon=True)
        self._thread.start()

    def poll(self) -> Outcome | None:
        if self._cancelled:
            self.follower.cancelled = True
            return self.follower.outcome()
        with contextlib.suppress(queue.Empty):
            while True:
                kind, what = self._news.get_nowait()
                if kind == "event" and what.get("event") == "log":
                    self.follower.add_log(str(what.get("text") or ""))
                elif kind == "event":
                    self.follower.add(what)
                elif kind == "failed":
                    self.follower.failed = self.follower.failed or what
                    return self.follower.outcome()
                else:
                    return self._outcome()
        return None

    def _outcome(self) -> Outcome:
        """Results with the paths of this computer."""
        for case in self.follower.cases:
            if case.result is not None and self._job is not None:
                local = self._job.cases[case.number].outputs
                names = (case.result.get("outputs") or {}).items()
                case.result["outputs"] = {key: str(local[name]) for key, name in names if name in local}
        if isinstance(self._job, LookJob):
            for event in self.follower.maps:
                event["path"] = str(_map_path(self._job, event))
        return self.follower.outcome()

    def cancel(self) -> None:
        self._cancelled = True
        self._end()

    def stop(self) -> None:
        self._end()

    def _end(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            threading.Thread(target=self._forget, daemon=True).start()

    def _forget(self) -> None:
        """End and delete the run on the server; where that fails, the server does it after its time-out."""
        if self._thread is not None:
            self._thread.join(0.2)
        if self._run:
            with contextlib.suppress(ServerError, KeyError):
                Client(self.address, self.token).ask("DELETE", f"/v1/runs/{self._run}")

    # ---- in the thread

    def _work(self, job: Job | LookJob) -> None:
        client = Client(self.address, self.token, self._stop.is_set)
        try:
            self._run = client.create(request_of(job))
            if self._stop.is_set():
                raise Stopped
            self._send(client, job)
            client.ask("POST", f"/v1/runs/{self._run}/start")
            done, maps = self._follow(client)
            for number, outputs in done.items():
                for name in outputs.values():
                    client.download(f"{self._run}/outputs/{number}/{name}", Path(job.cases[number].outputs[name]))
            if isinstance(job, LookJob):
                job.maps_folder.mkdir(exist_ok=True)
                for event in maps:
                    if event.get("kind") in _MAPS_WANTED:
                        client.download(f"{self._run}/maps/{int(event['number'])}", _map_path(job, event))
            self._news.put(("done", None))
        except Stopped:
            pass
        except ServerError as error:
            self._news.put(("failed", str(error)))
        except OSError as error:
            self._news.put(("failed", f"a file of the run cannot be read or written ({error.strerror or error})"))
        except Exception as error:  # whatever the server answered: a thread must not end without a word
            self._news.put(("failed", f"the server's answer cannot be read ({type(error).__name__})"))
        finally:
            client.close()

    def _send(self, client: Client, job: Job | LookJob) -> None:
        total = sum(len(case.inputs) for case in job.cases)
        done = 0
        for number, case in enumerate(job.cases):
            for channel, path in enumerate(case.inputs):
                self._news.put(("event", {"event": "progress", "stage": f"sending {done + 1} of {total}"}))
                client.upload(self._run, number, channel, Path(path))
                done += 1

    def _follow(self, client: Client) -> tuple[dict[int, dict[str, str]], list[dict[str, Any]]]:
        """Hand on events until the last one, over broken connections.

        Returns the outputs of each case that is done, and the events `map`.
        """
        after, failures, done, maps = 0, 0, {}, []
        while True:
            try:
                for number, event in client.events(self._run, after):
                    after, failures = number, 0
                    self._news.put(("event", event))
                    if event.get("event") == "result" and not event.get("cancelled"):
                        done[int(event.get("case") or 0)] = dict(event.get("outputs") or {})
                    if event.get("event") == "map":
                        maps.append(event)
                return done, maps
            except ServerError:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise
            deadline = time.monotonic() + _SECONDS_BETWEEN
            while time.monotonic() < deadline:
                if self._stop.is_set():
                    raise Stopped
                time.sleep(0.05)


def _map_path(job: LookJob, event: dict[str, Any]) -> Path:
    """Where a map's file goes on this computer: a name made of its number here."""
    return job.maps_folder / f"{int(event['number'])}{SUFFIXES.get(str(event.get('kind')), '')}"


def request_of(job: Job | LookJob) -> dict[str, Any]:
    """A job as the server takes it: no name of this computer's files is in it."""
    cases = []
    for case in job.cases:
        item: dict[str, Any] = {
            "name": case.name[:200],
            "inputs": [_suffix(Path(path)) for path in case.inputs],
            "outputs": {name: _suffix(Path(path)) for name, path in case.outputs.items()},
        }
        if case.region is not None:
            item["region"] = list(case.region)
        cases.append(item)
    asked = {"bundle": job.bundle, "cases": cases, "options": dict(vars(job.options))}
    return {**asked, "explain": job.request()} if isinstance(job, LookJob) else asked


def _suffix(path: Path) -> str:
    """
    >>> _suffix(Path("a.b.seg.nrrd")), _suffix(Path("a.nii.gz")), _suffix(Path("x.nrrd"))
    ('.seg.nrrd', '.nii.gz', '.nrrd')
    """
    ends = [suffix for suffix in (".seg.nrrd", ".nii.gz") if path.name.endswith(suffix)]
    return ends[0] if ends else path.suffix
