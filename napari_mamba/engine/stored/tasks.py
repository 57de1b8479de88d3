"""What other processes are asked to do for a run into a store."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

from napari_mamba.engine.stored.work import Job

Task = tuple[str, Any]
"""What a process does at once: ("blocks", keys of a column), or ("coarser", (level, key, box, step))."""


class Spread(Protocol):
    """Has tasks done by other processes, as `napari_mamba.cluster` does."""

    @property
    def workers(self) -> int:
        """How many tasks are done at a time."""
        ...

    def __call__(self, job: Job, tasks: Sequence[Task]) -> Generator[tuple[Task, dict[str, float]], None, None]:
        """Each task as it ends, with the seconds for which it computed, read and wrote."""
        ...
