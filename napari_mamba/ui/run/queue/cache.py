"""Answers of runs that were made before with the very same image, bundle and options. No Qt."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Result, RunOptions
    from napari_mamba.volume import Volume


class ResultCache:
    """The latest results, as many as fit into `limit` bytes. Each is handed out as a copy, since labels are painted on.

    Parameters
    ----------
    limit : int
        0 keeps none.
    """

    def __init__(self, limit: int = 2**29):
        self.limit = limit
        self._results: OrderedDict[str, Result] = OrderedDict()

    def get(self, key: str) -> Result | None:
        """The result of that run, if it is still here."""
        if key not in self._results:
            return None
        self._results.move_to_end(key)
        return copied(self._results[key])

    def put(self, key: str, result: Result) -> None:
        """Keep a result, and let go of the oldest for it."""
        size = size_of(result)
        if size > self.limit or result.cancelled:
            return
        self._results[key] = copied(result)
        self._results.move_to_end(key)
        self.trim()

    def trim(self) -> None:
        """Let go of the oldest, until what is left fits into the limit."""
        while self._results and sum(map(size_of, self._results.values())) > self.limit:
            self._results.popitem(last=False)

    def __len__(self) -> int:
        return len(self._results)


def run_key(volume: Volume, bundle: Bundle, options: RunOptions) -> str:
    """A checksum over everything that a result depends on: voxels, geometry, bundle and options."""
    digest = hashlib.blake2b(digest_size=20)
    data = np.asarray(volume.data)
    head = [data.shape, data.dtype.str, volume.affine.tolist(), volume.units, volume.channel_names, volume.name]
    digest.update(json.dumps([head, bundle.sha256, options.to_dict()], default=str).encode())
    for channel in data:
        digest.update(np.ascontiguousarray(channel).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def copied(result: Result) -> Result:
    """A result whose arrays can be written to without changing the other's."""
    from dataclasses import replace

    def copy(volume: Any) -> Any:
        return None if volume is None else replace(volume, data=np.array(volume.data))

    extra = {name: copy(volume) for name, volume in result.extra.items()}
    return replace(result, labels=copy(result.labels), image=copy(result.image), extra=extra)


def size_of(result: Result) -> int:
    """Bytes of a result's arrays."""
    volumes = [result.labels, result.image, *result.extra.values()]
    return sum(int(volume.data.nbytes) for volume in volumes if volume is not None)
