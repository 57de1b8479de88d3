"""A Zarr array as the values of a volume: they stay on disk until they are indexed."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common.explaining import network_failure
from napari_mamba.io.stores import is_address

_MOST_CHUNKS = 10_000


class OnDisk:
    """A view (C, Z, Y, X) of a Zarr array with some of the axes t, c, z, y, x; reads only what is indexed.

    Takes integers, slices and `...`, and becomes an array by `numpy.asarray`.
    """

    ndim = 4

    def __init__(self, source: Any, axes: str, frames: list[int], path: Path = Path()) -> None:
        self.source, self.axes, self.path = source, axes, path
        sizes = dict(zip(axes, source.shape, strict=True))
        self.frames = frames if len(frames) > 1 else None  # time as channels
        self.frame = frames[0]
        channels = len(frames) if self.frames else sizes.get("c", 1)
        self.shape = (channels, sizes.get("z", 1), sizes["y"], sizes["x"])
        self.dtype = np.dtype(source.dtype).newbyteorder("=")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """The values at `key`, as NumPy's basic indexing would give them."""
        ranges: list[range] = []
        kept: list[Any] = []
        for item, size in zip(_full(key, self.ndim), self.shape, strict=True):
            if isinstance(item, slice):
                ranges.append(range(*item.indices(size)))
                kept.append(slice(None))
            else:
                if not -size <= item < size:
                    raise IndexError(f"index {item} is out of bounds for an axis of size {size}")
                ranges.append(range(item % size, item % size + 1))
                kept.append(0)
        return self._block(dict(zip("czyx", ranges, strict=True)))[tuple(kept)]

    def _block(self, wanted: dict[str, range]) -> np.ndarray:
        wanted["t"] = wanted["c"] if self.frames else range(self.frame, self.frame + 1)
        if any(len(items) == 0 for items in wanted.values()):
            return np.empty([len(wanted[axis]) for axis in "czyx"], self.dtype)
        # Zarr takes forward slices only: read the span, then step through it in memory.
        spans = [slice(*_span(wanted[axis])) for axis in self.axes]
        steps = [slice(None, None, wanted[axis].step) for axis in self.axes]
        block = self._read(tuple(spans))[tuple(steps)]
        return block.astype(self.dtype, copy=False).reshape([len(wanted[axis]) for axis in "czyx"])

    def _read(self, spans: tuple[slice, ...]) -> np.ndarray:
        """What is stored there; `InputError` where a chunk is damaged, however its codec puts it."""
        _check_announced(self.source, spans, self.path)
        try:
            return np.asarray(self.source[spans])
        except NapariMambaError:
            raise
        except MemoryError as error:
            raise InputError(f"{self.path} does not fit in memory: read a part or a coarser level of it") from error
        except Exception as error:  # codecs raise anything on damaged chunks
            if unreached := network_failure(self.path, error):
                raise unreached from error
            reason = _guard.quoted((str(error).strip().splitlines() or [type(error).__name__])[-1])
            raise InputError(
                f"{_guard.address_of(self.path)} is damaged, a chunk of it cannot be read ({reason}): copy it anew"
            ) from error
        finally:
            self._check_there()

    def _check_there(self) -> None:
        """Raise `InputError` where the store is gone: a chunk that is not there is read as zeros."""
        if self.path != Path() and not is_address(self.path) and not self.path.exists():
            raise InputError(f"{self.path} is gone: its disk may have been taken away, mount it again")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values."""
        return self[...].astype(dtype or self.dtype, copy=False)


def _span(items: range) -> tuple[int, int]:
    """First index and the one behind the last; `min` would walk through a billion of them."""
    return min(items[0], items[-1]), max(items[0], items[-1]) + 1


def _check_announced(source: Any, spans: tuple[slice, ...], path: Path) -> None:
    """Raise `InputError` if what is wanted is far more than the store can hold: chunks that are absent cost nothing."""
    sizes = [span.stop - span.start for span in spans]
    itemsize = np.dtype(source.dtype).itemsize
    announced = max(_guard.counted(sizes, itemsize), _guard.counted(source.chunks, itemsize))
    chunks = math.prod(-(-size // max(1, chunk)) for size, chunk in zip(sizes, source.chunks, strict=True))
    if announced <= _guard.LARGE and chunks <= _MOST_CHUNKS:
        return
    if is_address(path) or path.is_file():  # what is stored there cannot be counted file by file
        return
    folder = path / source.path if path.is_dir() else path
    files = [file for file in folder.rglob("*") if file.is_file()]
    _guard.check_unpacked(announced, sum(file.stat().st_size for file in files), path)
    if chunks > _MOST_CHUNKS and len(files) < chunks // 100:
        raise InputError(f"{path} announces {chunks:,} chunks, most of which are not there: check where it came from")


def absent_chunks(source: Any, path: Path) -> str:
    """A sentence where chunks of an array are not in its folder, which the format then takes as its fill value.

    Returns
    -------
    str
        Empty where all are there, or they are not counted: an address, a zip, very many chunks.

    Raises
    ------
    InputError
        If none is there although the folder holds files: the metadata are about others.
    """
    counts = [-(-size // max(1, step)) for size, step in zip(source.shape, _stored_in(source), strict=True)]
    folder = path / source.path
    if is_address(path) or not folder.is_dir() or math.prod(counts) > _MOST_CHUNKS:
        return ""
    every = list(itertools.product(*map(range, counts)))
    absent = sum(not (folder / source.metadata.encode_chunk_key(place)).is_file() for place in every)
    if not absent:
        return ""
    if absent == len(every) and any(
        item.is_file() and not item.name.startswith(".") and item.name != "zarr.json" for item in folder.rglob("*")
    ):
        raise InputError(f"{path} holds none of the chunks that its metadata tell of, but others: copy it anew")
    return (
        f"{absent:,} of {len(every):,} chunks are not in the store and count as {source.fill_value}, as the format has "
        "it: if the image should have something there, copy it anew."
    )


def _stored_in(source: Any) -> tuple[int, ...]:
    """The shape of what one file holds: a chunk, or a shard of several."""
    return getattr(source, "shards", None) or source.chunks


def _full(key: Any, ndim: int) -> list[Any]:
    key = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in [item for item in key if not isinstance(item, np.ndarray)]:
        place = key.index(Ellipsis)
        key[place : place + 1] = [slice(None)] * (ndim - len(key) + 1)
    key += [slice(None)] * (ndim - len(key))
    if len(key) != ndim:
        raise IndexError(f"{len(key)} indexes for {ndim} axes")
    return [item if isinstance(item, slice) else int(item) for item in key]
