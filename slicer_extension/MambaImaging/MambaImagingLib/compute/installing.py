"""napari-mamba in Slicer's own Python: nothing that Slicer has may be replaced, and a failure leaves it as it was.

The steps are: PyTorch through the PyTorch extension; then napari-mamba by pip, with every installed package held at its
version by a constraints file. torch is never imported here: on Windows its files would be locked.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = "napari-mamba"
SOURCE = "napari-mamba @ https://github.com/napari-mamba/napari-mamba/archive/refs/heads/main.zip"
"""What pip installs: a name, an address, or a wheel. The package is not on PyPI yet."""
TORCH = ">=2.6,<2.14"
_CONSTRAINTS = "mamba-imaging-constraints.txt"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def installed() -> dict[str, str]:
    """Name and version of every package that this Python has."""
    importlib.invalidate_caches()
    found = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        if name and version and _NAME.fullmatch(name):
            found[_normal(name)] = version
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def has(module: str) -> bool:
    """Whether a module can be imported, found out without importing it."""
    importlib.invalidate_caches()
    return importlib.util.find_spec(module) is not None


def constraints(packages: Mapping[str, str]) -> str:
    """A constraints file that holds every package at its version.

    >>> print(constraints({"numpy": "2.0.2", "napari-mamba": "0.1.0"}), end="")
    numpy==2.0.2
    """
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()) if name != PACKAGE)


def pip_words(constraint_file: Path, wheels: Path | None = None, source: str = SOURCE) -> list[str]:
    """Arguments of `python -m pip`, from the network or from a folder of wheels."""
    words = ["install", "--upgrade-strategy", "only-if-needed", "--no-input", "--disable-pip-version-check"]
    words += ["--constraint", str(constraint_file)]
    if wheels is not None:
        return [*words, "--no-index", "--find-links", str(wheels), PACKAGE]
    return [*words, source]


def torch_words(constraint_file: Path, wheels: Path) -> list[str]:
    """Arguments of `python -m pip` for PyTorch from a folder of wheels."""
    words = ["install", "--no-input", "--constraint", str(constraint_file)]
    return [*words, "--no-index", "--find-links", str(wheels), f"torch{TORCH}"]


@dataclass
class Installed:
    """How an installation ended; `error` is a sentence, empty if all went well."""

    error: str = ""
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Installation:
    """An installation in progress; `poll` gives how it ended, None before. Nothing waits.

    Parameters
    ----------
    start_pip : callable
        Starts `python -m pip WORDS` in Slicer's Python and returns a `processes.Process`.
    install_torch : callable or None
        Installs PyTorch through the PyTorch extension, raising what goes wrong; None: from `wheels`, or it is there.
    freeze : callable
        The packages at the moment: `installed`.
    folder : Path
        For the constraints file.
    wheels : Path, optional
        A folder of wheels, where there is no network.
    """

    def __init__(
        self,
        start_pip: Callable[[list[str]], Any],
        install_torch: Callable[[], None] | None,
        freeze: Callable[[], dict[str, str]],
        folder: Path,
        wheels: Path | None = None,
        source: str = SOURCE,
    ):
        self._start_pip, self._freeze, self._folder, self._wheels = start_pip, freeze, folder, wheels
        self._source = source
        self.before = freeze()
        self.log: list[str] = []
        self._failed = ""
        self._undoing = False
        self._process: Any = None
        self._words: list[list[str]] = []
        if "torch" not in self.before:
            self._get_torch(install_torch)
        if not self._failed:
            self._words.append(pip_words(self._hold(), wheels, source))
        self._next()

    def _get_torch(self, install_torch: Callable[[], None] | None) -> None:
        if self._wheels is not None:
            self._words.append(torch_words(self._hold(), self._wheels))
            return
        if install_torch is None:
            self._failed = "PyTorch is missing: install the extension PyTorch, or choose another Python"
            return
        try:
            install_torch()
        except Exception as error:  # the extension raises what it likes: the user gets one sentence
            self._failed = f"PyTorch could not be installed ({error}): choose another Python instead"

    def _hold(self) -> Path:
        path = self._folder / _CONSTRAINTS
        path.write_text(constraints(self._freeze()), encoding="utf-8")
        return path

    def _next(self) -> None:
        self._process = self._start_pip(self._words.pop(0)) if self._words and not self._failed else None

    def poll(self) -> Installed | None:
        if self._process is not None:
            self._take_in()
            if self._process.code is None or not self._process.read_out:
                return None
            self._take_in()
            code, self._process = self._process.code, None
            if code != 0 and not self._undoing and not self._failed:
                last = next((line for line in reversed(self.log) if "error" in line.lower()), f"pip ended with {code}")
                self._failed = f"napari-mamba could not be installed ({last.strip()[:300]})"
            if not self._failed:
                self._next()
                if self._process is not None:
                    return None
        return self._conclude()

    def _conclude(self) -> Installed | None:
        now = self._freeze()
        added = sorted(set(now) - set(self.before))
        changed = sorted(name for name, version in self.before.items() if now.get(name) != version)
        if changed and not self._failed:
            self._failed = (
                f"packages of Slicer changed ({', '.join(changed[:5])}): reinstall Slicer, choose another Python"
            )
        if self._failed and added and not self._undoing:
            self._undoing = True
            self._process = self._start_pip(["uninstall", "--yes", *added])
            return None
        (self._folder / _CONSTRAINTS).unlink(missing_ok=True)
        return Installed(self._failed, added, changed, self.log)

    def _take_in(self) -> None:
        self.log += [line.decode("utf-8", "replace").rstrip() for line in self._process.output()]
        self.log += [line.rstrip() for line in self._process.errors()]

    def stop(self) -> None:
        """Cancel: what was added goes again at the next polls."""
        if not self._undoing:
            self._failed = "cancelled"
            if self._process is not None:
                self._process.kill()
