"""The store that a run writes: an OME-Zarr image whose metadata come last, so that a part of one is none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.engine.tiling.tiles import Box, Shape
from napari_mamba.errors import NapariMambaError, OutputError
from napari_mamba.io.common.atomic import reason_of
from napari_mamba.io.common.settling import remove_for_good, settle
from napari_mamba.io.stores import address_of, is_address, open_store, remove

_FLUSHED_TOGETHER = 8


@dataclass
class Target:
    """The arrays of a store, finest first.

    Attributes
    ----------
    address : str
    levels : list of zarr.Array
        (C, Z, Y, X) each.
    """

    address: str
    levels: list[Any]

    @classmethod
    def create(cls, address: str, channels: int, dtype: np.dtype, shapes: Sequence[Shape], chunks: Shape) -> Target:
        """A new store; what was there is removed. It is no image before `napari_mamba.io` says so."""
        import zarr

        with explained(address):
            store = open_store(address, read_only=False)
            remove(store)
            group = zarr.open_group(store, mode="w", zarr_format=2)
            levels = [
                group.create_array(
                    str(level),
                    shape=(channels, *shape),
                    chunks=(1, *(min(chunk, n) for chunk, n in zip(chunks, shape, strict=True))),
                    dtype=dtype,
                    fill_value=0,
                    chunk_key_encoding={"name": "v2", "separator": "/"},
                )
                for level, shape in enumerate(shapes)
            ]
        return cls(address, levels)

    @classmethod
    def open(cls, address: str, count: int) -> Target:
        """The store of a run that goes on; raises `OutputError` where it is not there any more."""
        import zarr

        try:
            group = zarr.open_group(open_store(address, read_only=False), mode="r+")
            return cls(address, [group[str(level)] for level in range(count)])
        except (KeyError, FileNotFoundError, zarr.errors.GroupNotFoundError) as error:
            raise OutputError(f"{address} is gone or not whole: begin anew with --overwrite") from error

    def write(self, level: int, box: Box, block: np.ndarray) -> None:
        """Write a block (C, z, y, x) of whole chunks; it is on the disk when this returns."""
        with explained(self.address):
            self.levels[level][(slice(None), *box)] = block
            if not is_address(self.address):
                self._flush(level, box)

    def _flush(self, level: int, box: Box) -> None:
        """Have the system write the chunks' files, so that the journal is true after a power cut, too."""
        array = self.levels[level]
        _, *chunks = array.chunks
        z, y, x = (range(b.start // c, -(-b.stop // c)) for b, c in zip(box, chunks, strict=True))
        folder = Path(self.address) / str(level)
        files = [folder / f"{c}/{i}/{j}/{k}" for c in range(array.shape[0]) for i in z for j in y for k in x]
        with ThreadPoolExecutor(min(len(files), _FLUSHED_TOGETHER), "flushing") as pool:
            for _ in pool.map(_flushed, files):  # a disk is quicker when it knows of several
                pass


def _flushed(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:  # a chunk of zeros has no file
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(address: str) -> Iterator[None]:
    """One sentence for whatever a store raises while it is written."""
    try:
        yield
    except NapariMambaError:
        raise
    except OSError as error:
        raise OutputError(f"{address} cannot be written: {reason_of(error)}; then go on with --resume") from error
    except MemoryError:
        raise
    except Exception as error:  # drivers of object stores raise anything
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise OutputError(
            f"{address} cannot be written ({said}): check your access to it, then go on with --resume"
        ) from error


def discard(address: str) -> None:
    """Remove what there is of a store that could not be made."""
    if not is_address(address):
        remove_for_good(Path(address))
        return
    settle()
    with suppress(Exception):
        remove(open_store(address, read_only=False))


def state_of(address: str | os.PathLike[str]) -> str:
    """ "nothing", "image" (a whole OME-Zarr), "part" (a Zarr group that is none), or "other"."""
    import zarr

    place = address_of(address)
    if not is_address(place) and not os.path.lexists(place):
        return "nothing"
    try:
        group = zarr.open_group(open_store(place), mode="r")
    except (zarr.errors.GroupNotFoundError, FileNotFoundError):
        return "nothing" if is_address(place) else "other"
    except Exception:
        return "other"
    attributes = dict(group.attrs)
    inner = attributes.get("ome", attributes)
    return "image" if isinstance(inner, dict) and "multiscales" in inner else "part"
