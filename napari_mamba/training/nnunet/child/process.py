"""nnU-Net run as a child: its environment, what it tells, how it is stopped, and why it failed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError, OutOfMemoryError, OutputError, RunError
from napari_mamba.training.nnunet.child.settings import VARIABLE, Settings
from napari_mamba.training.nnunet.child.worker import STOPPED

TRAINERS = Path(__file__).parents[1] / "trainers"
"""What `nnUNet_extTrainer` is set to."""

_SECONDS_TO_STOP = 60.0
_POLL = 0.2
_TAIL = 20_000


def require_nnunet() -> None:
    """Raise `InputError` if nnU-Net v2 is not installed."""
    if importlib.util.find_spec("nnunetv2") is None:
        raise InputError("training needs nnU-Net, which is not installed: pip install 'napari-mamba[nnunet]'")


def environment(work: Path, processes: int) -> dict[str, str]:
    """This process's environment with nnU-Net's folders and numbers of workers; what a user has set stays."""
    folders = {f"nnUNet_{name}": str((work / name).resolve()) for name in ("raw", "preprocessed", "results")}
    before = os.environ.get("nnUNet_extTrainer", "")  # noqa: SIM112  nnU-Net's spelling
    trainers = os.pathsep.join([str(TRAINERS), *([before] if before else [])])
    paths = [str(Path(__file__).parents[4]), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        # nnU-Net's planning divides by the number of these; with none, its loaders run in the process itself
        "nnUNet_n_proc_DA": str(min(12, processes)), "nnUNet_def_n_proc": str(processes),
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }  # fmt: skip
    return {**own, **os.environ, **folders, "nnUNet_extTrainer": trainers, "PYTHONPATH": os.pathsep.join(paths)}


def run_job(
    job: Mapping[str, Any], settings: Settings, work: Path, cancel: threading.Event, processes: int
) -> Generator[dict[str, Any], None, bool]:
    """Run one job, yielding what the trainer tells; returns whether it was stopped.

    Raises
    ------
    OutOfMemoryError, OutputError, RunError
        If nnU-Net failed; its whole output is in `nnunet.log` in the folder.
    """
    log, events, stop = work / "nnunet.log", work / "events.jsonl", work / "stop"
    stop.unlink(missing_ok=True)
    reader = _Reader(events)
    (work / "job.json").write_text(json.dumps(dict(job)))
    settings.write(work / "settings.json")
    variables = environment(work, processes) | {VARIABLE: str((work / "settings.json").resolve())}
    with log.open("ab") as output:
        begin = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "napari_mamba.training.nnunet.child.worker", str(work / "job.json")],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True,
        )  # fmt: skip
    try:
        asked = None
        validating = job["action"] != "train"
        while child.poll() is None:
            for line in reader.lines():
                validating = validating or line["what"] == "validating"
                yield line
            if cancel.is_set() and asked is None:
                asked = time.monotonic()
                stop.touch()
            if asked is not None and (validating or time.monotonic() - asked > _SECONDS_TO_STOP):
                break
            time.sleep(_POLL)
        yield from reader.lines()
    finally:
        _end(child)
        stop.unlink(missing_ok=True)
    if cancel.is_set() or child.returncode == STOPPED:
        return True
    if child.returncode != 0:
        _explain(log, begin)
    return False


class _Reader:
    """Whole new lines of a log that another process appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read = path.stat().st_size if path.exists() else 0

    def lines(self) -> Iterator[dict[str, Any]]:
        """Those since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.read)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return
                self.read += len(raw)
                yield json.loads(raw)


def _end(child: subprocess.Popen) -> None:
    """End the child and its workers, if they are still there."""
    if os.name == "posix":
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(child.pid, number)
            except ProcessLookupError:
                break
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                continue
    elif child.poll() is None:
        child.kill()
    child.wait()


def _explain(log: Path, begin: int) -> None:
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - _TAIL))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lowered = text.lower()
    if "out of memory" in lowered or "cannot allocate memory" in lowered or "memoryerror" in lowered:
        raise OutOfMemoryError(
            "memory ran out while training: plan for less with --gpu-memory 4, and a new output folder"
        )
    if "no space left on device" in lowered or "disk quota exceeded" in lowered:
        raise OutputError(f"the disk of {log.parent} is full: free some space; --resume goes on")
    errors = [line for line in lines if "Error" in line.partition(":")[0]] or lines or ["no message"]
    raise RunError(f"nnU-Net stopped ({errors[-1][:200]}): see {log}; --resume goes on from the last checkpoint")
