"""Where runs are computed: Slicer's Python, another Python, a remote computer. One interface for the three."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .bundles import BundleInfo, read_bundles
from .processes import Query
from .runners import LocalRunner, Runner

MODULE = ["-m", "napari_mamba"]
_SLICERS_OWN = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "QT_PLUGIN_PATH", "PIP_REQUIRE_VIRTUALENV")
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH")

SCHEDULER = "NAPARI_MAMBA_SCHEDULER"
"""The variable by which the command is told of a cluster."""


@dataclass(frozen=True)
class Answer:
    """What a place said. `error` is a sentence, empty if all is well."""

    value: Any = None
    error: str = ""


class Question(Protocol):
    """Something asked of a place; `poll` gives the answer once it is there, None before. Nothing waits."""

    def poll(self) -> Answer | None: ...

    def stop(self) -> None: ...


class Place(Protocol):
    """Where runs are computed."""

    def runner(self) -> Runner:
        """For one run."""

    def ask_version(self) -> Question:
        """The version of napari-mamba there."""

    def ask_bundles(self) -> Question:
        """The bundles there, as a list of `BundleInfo`."""

    def ask_devices(self) -> Question:
        """The devices there, as a list of names."""


class LocalPlace:
    """A Python on this computer that has napari-mamba.

    Parameters
    ----------
    python : str
        The interpreter, or Slicer's launcher `PythonSlicer`.
    environment : mapping, optional
        Whole environment of its processes; that of the application by default.

    Attributes
    ----------
    scheduler : str
        Address of a Dask scheduler, whose cluster computes runs; empty: this computer does.
    """

    def __init__(self, python: str, environment: Mapping[str, str] | None = None):
        self.command = [python, *MODULE]
        self.environment = environment
        self.scheduler = ""

    def runner(self) -> Runner:
        if not self.scheduler:
            return LocalRunner(self.command, self.environment)
        given = os.environ if self.environment is None else self.environment
        return LocalRunner(self.command, {**given, SCHEDULER: self.scheduler})

    def ask_version(self) -> Question:
        return LocalQuestion(self, ["--version"], _version)

    def ask_bundles(self) -> Question:
        return LocalQuestion(self, ["models", "--json"], read_bundles)

    def ask_devices(self) -> Question:
        return LocalQuestion(self, ["devices", "--json"], _devices)

    def import_checkpoint(self, path: str) -> Question:
        """Make a bundle of a foreign checkpoint; the answer is what the command says about it."""
        return LocalQuestion(self, ["import", path], str.strip)


class LocalQuestion:
    """A short command, and what becomes of its stdout."""

    def __init__(self, place: LocalPlace, words: list[str], reader: Callable[[str], Any]):
        self._reader, self._failed = reader, ""
        try:
            self._query: Query | None = Query([*place.command, *words], place.environment)
        except OSError as error:
            self._query = None
            self._failed = f"{place.command[0]} cannot be started ({error.strerror}): check its path"

    def poll(self) -> Answer | None:
        if self._query is None:
            return Answer(error=self._failed)
        ended = self._query.poll()
        if ended is None:
            return None
        code, out, err = ended
        if code != 0:
            return Answer(error=_why(err, code))
        try:
            return Answer(self._reader(out))
        except (ValueError, KeyError, TypeError) as error:
            return Answer(error=f"its answer cannot be read ({error}): update napari-mamba")

    def stop(self) -> None:
        if self._query is not None:
            self._query.stop()


def _why(stderr: str, code: int) -> str:
    """The last line of stderr as a sentence."""
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    if "No module named" in last and "napari_mamba" in last:
        return "napari-mamba is not installed there: install it, or choose another place"
    return last.removeprefix("error: ")[:400] or f"it ended with the code {code}"


def _version(text: str) -> str:
    words = text.split()
    if len(words) != 2 or words[0] != "napari-mamba":
        raise ValueError(text[:80])
    return words[1]


def _devices(text: str) -> list[str]:
    return [str(one["device"]) for one in json.loads(text)]


def slicer_python() -> str:
    """Slicer's launcher of its own Python; this interpreter where there is none."""
    return shutil.which("PythonSlicer") or sys.executable


def foreign_environment(environment: Mapping[str, str], slicer_home: str = "") -> dict[str, str]:
    """An environment without what Slicer put into it, for another Python.

    Parameters
    ----------
    environment : mapping
    slicer_home : str
        Slicer's folder: library paths below it go.

    Examples
    --------
    >>> foreign_environment({"PYTHONHOME": "/S/lib/Python", "PATH": "/S/bin:/usr/bin"}, "/S")
    {'PATH': '/usr/bin'}
    """
    kept = {name: value for name, value in environment.items() if name not in _SLICERS_OWN}
    home = os.path.normcase(os.path.abspath(slicer_home)) if slicer_home else ""
    for name in _LIBRARY_PATHS:
        if name in kept and home:
            parts = [part for part in kept[name].split(os.pathsep) if not _below(part, home)]
            kept[name] = os.pathsep.join(parts)
    return kept


def _below(path: str, home: str) -> bool:
    place = os.path.normcase(os.path.abspath(path or os.curdir))
    return place == home or place.startswith(home + os.sep)


def checked_python(path: str) -> str:
    """The interpreter that a user named.

    Raises
    ------
    ValueError
        If there is no such file.
    """
    place = Path(path).expanduser()
    if not path.strip():
        raise ValueError("name a Python that has napari-mamba: the file python or python.exe of its environment")
    for candidate in (place, place / "bin" / "python", place / "python.exe", place / "Scripts" / "python.exe"):
        if candidate.is_file():
            return str(candidate)
    raise ValueError(f"{path} is no Python: name the file python or python.exe of an environment")


__all__ = [
    "Answer",
    "BundleInfo",
    "LocalPlace",
    "Place",
    "Question",
    "checked_python",
    "foreign_environment",
    "slicer_python",
]
