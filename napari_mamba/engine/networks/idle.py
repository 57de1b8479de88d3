"""Networks that a run has left, kept on their device for the next run of the same bundle."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_mamba.engine.tiling.passes import drop_graphs, graph_bytes

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

MOST_BYTES = 2**30
"""What idle networks may hold on all devices together; the oldest go first."""

GRAPHS_SHARE = 1 / 32
"""The part of a GPU's memory that CUDA graphs of idle networks may hold: other programs want it, too."""

Key = tuple[Any, ...]


class IdleNetworks:
    """Networks by bundle and device, each given to one run at a time.

    A run that hooks into a network's layers must not hear another run's passes, so that what one has taken is nobody
    else's until it is put back; a second run at the same time builds its own.

    Parameters
    ----------
    most_bytes : int
        Of the networks.
    most_graph_bytes : int, optional
        Of their CUDA graphs; `GRAPHS_SHARE` of the smallest GPU if not given.

    Examples
    --------
    >>> idle = IdleNetworks(1000)
    >>> idle.put(("a",), [nn.Linear(2, 2)])
    >>> idle.take(("a",)), idle.take(("a",))
    ([Linear(in_features=2, out_features=2, bias=True)], None)
    """

    def __init__(self, most_bytes: int = MOST_BYTES, most_graph_bytes: int | None = None):
        self.most_bytes = most_bytes
        self._most_graph_bytes = most_graph_bytes
        self._kept: OrderedDict[Key, list[nn.Module]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Key | None) -> list[nn.Module] | None:
        """The networks kept under a key, which are the caller's from now on; None where there are none."""
        with self._lock:
            return None if key is None else self._kept.pop(key, None)

    def put(self, key: Key | None, networks: list[nn.Module]) -> None:
        """Keep networks as the latest, and let the oldest go where all are too large together."""
        if key is None:
            return
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = networks
            while self._kept and sum(map(_size, self._kept.values())) > self.most_bytes:
                self._kept.popitem(last=False)
            self._drop_graphs()

    def _drop_graphs(self) -> None:
        """Let CUDA graphs go until the rest is small enough, the oldest networks' first."""
        for networks in self._kept.values():
            held = sum(map(graph_bytes, self._kept.values()))
            if not held or held <= self.most_graph_bytes:
                return
            drop_graphs(networks)

    @property
    def most_graph_bytes(self) -> int:
        """What the CUDA graphs of idle networks may hold on all devices together."""
        if self._most_graph_bytes is None:
            cards = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
            self._most_graph_bytes = int(min(cards, default=0) * GRAPHS_SHARE)
        return self._most_graph_bytes

    def clear(self) -> int:
        """Let all go: memory is asked for. Returns the bytes that they held."""
        with self._lock:
            held = sum(_size(networks) + drop_graphs(networks) for networks in self._kept.values())
            self._kept.clear()
        return held


IDLE = IdleNetworks()


def key_of(bundle: Bundle, device: torch.device) -> Key | None:
    """What a bundle's networks on a device are kept under; None where its files cannot be looked at.

    The files' times and sizes stand beside its checksum, which a bundle without declared ones reads once alone.
    """
    try:
        inside_a_zip = bundle.path.is_file()
        files = [bundle.path] if inside_a_zip else list(bundle.weights)
        stamps = tuple((str(file), *_stamp(file)) for file in files)
        return (bundle.sha256, stamps, str(device)) if stamps else None
    except (AttributeError, OSError):
        return None


def _stamp(file: Any) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size


def _size(networks: list[nn.Module]) -> int:
    return sum(p.nbytes for network in networks for p in (*network.parameters(), *network.buffers()))
