"""What workers of the tests' clusters run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from napari_mamba import io
from napari_mamba.cluster.on_worker import Outcome, outcome_of
from napari_mamba.errors import InputError


def doubled(number: int, seconds: float = 0.0) -> Outcome:
    time.sleep(seconds)
    return Outcome(2 * number)


def dies_once(folder: str, number: int) -> Outcome:
    """Ends its process the first time that it is called with a number of 3."""
    note = Path(folder) / f"{number}"
    if number == 3 and not note.exists():
        note.write_text("died")
        os._exit(1)
    return Outcome(number)


def dies(number: int) -> Outcome:
    os._exit(1)


def refuses(number: int) -> Outcome:
    def refuse() -> None:
        raise InputError(f"{number} is no good: give another")

    return outcome_of(refuse)


def process(number: int) -> Outcome:
    time.sleep(0.05)
    return Outcome(os.getpid())


class Vanishing:
    """An image that one process sees, and no other."""

    def __init__(self, path: str, process: int):
        self.path, self.process = path, process

    def __call__(self) -> object:
        if os.getpid() != self.process:
            raise InputError("the image is not there on the worker: put it where all see it")
        return io.open_volume(self.path)
