"""Running the command in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from napari_mamba import io
from napari_mamba.cli import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error, which has to be the one line of stderr beside lines of progress."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert "Traceback" not in self.err
        assert errors == lines[-1:], f"one line was expected, not {lines}"
        return errors[0]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command in this process, as its entry point does."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command in a process of its own; what is left running at the end is stopped."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object, **keywords: Any) -> subprocess.Popen[str]:
        line = [sys.executable, "-c", "import sys; from napari_mamba.cli import main; sys.exit(main())"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        line += [str(argument) for argument in arguments]
        process = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **keywords
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def finish(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Outcome]:
    """Run the command in a process of its own, to its end."""

    def run(*arguments: object, **keywords: Any) -> Outcome:
        process = start(*arguments, **keywords)
        out, err = process.communicate(timeout=300)
        return Outcome(process.returncode, out, err)

    return run


@pytest.fixture
def image(tmp_path: Path, volume) -> Path:
    """A small oblique NIfTI in a folder where nothing else is."""
    folder = tmp_path / "input"
    folder.mkdir()
    return io.write(volume, folder / "block.nii.gz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for outputs."""
    made = tmp_path / "output"
    made.mkdir()
    return made
