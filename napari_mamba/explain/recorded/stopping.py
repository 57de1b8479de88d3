"""A pass of a network that can be given up in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Stopped(Exception):
    """The event was set: the rest of the pass was not run."""


@contextmanager
def stoppable(network: nn.Module, cancel: threading.Event) -> Iterator[None]:
    """Have a network's passes in this block look at an event before each of its layers.

    Parameters
    ----------
    network : nn.Module
    cancel : threading.Event
        Once it is set, the pass that runs ends with `Stopped`, and no other begins.

    Examples
    --------
    >>> with stoppable(network, cancel):  # doctest: +SKIP
    ...     network(tile)
    """

    def look(*_: Any) -> None:
        if cancel.is_set():
            raise Stopped

    hooks = [module.register_forward_pre_hook(look) for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
