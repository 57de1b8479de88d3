"""Which kind of answer a bundle's task has: each file of this room enters its own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import cache

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.context import Context
from napari_mamba.errors import BundleError

_KINDS: dict[str, type[Answer]] = {}


def answers(task: str) -> Callable[[type[Answer]], type[Answer]]:
    """Decorator for a kind of answer: bundles whose task is `task` have it."""

    def enter(kind: type[Answer]) -> type[Answer]:
        if task in _KINDS:
            raise ValueError(f"two kinds of answer are for the task {task!r}")
        _KINDS[task] = kind
        return kind

    return enter


@cache
def _load_all() -> None:
    room = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(room.__path__, f"{__package__}."):
        importlib.import_module(module.name)


def answer_for(task: str, context: Context) -> Answer:
    """The kind of answer that a task has, made for a run.

    Raises
    ------
    BundleError
        If no kind of answer is known for the task.
    """
    _load_all()
    if task not in _KINDS:
        raise BundleError(f"the task {task!r} is not known; known are {', '.join(sorted(_KINDS))}")
    return _KINDS[task](context)
