"""Zarr stores wherever they are: a folder, a zip, or a place on the network by its address."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import ZARR_METADATA, address_of, check_unpacked, is_address, quoted

ZIPS = (".zarr.zip", ".ozx")
_LARGEST_TEXT = 16 << 20


def open_store(path: str | os.PathLike[str], *, read_only: bool = True) -> Any:
    """A Zarr store at a path or an address.

    Parameters
    ----------
    path : path or str
        A folder, a zip of one (`ZIPS`, read only), or an address that fsspec or obstore knows.
    read_only : bool

    Raises
    ------
    InputError
        If the address needs a package that is not there, or cannot be reached.
    """
    if is_address(path):
        return _remote(address_of(path), read_only)
    if os.fspath(path).lower().endswith(ZIPS):
        from zarr.storage import ZipStore

        if not read_only:
            raise InputError(
                f"{path} is a zip, which cannot be written chunk by chunk: name a folder, and zip it later"
            )
        _check_zip(Path(path))
        return ZipStore(Path(path), mode="r", read_only=True)
    if read_only:
        from napari_mamba.io.formats.zarr_store import CheckedStore

        return CheckedStore(Path(path))
    from zarr.storage import LocalStore

    return LocalStore(Path(path))


def _check_zip(path: Path) -> None:
    """Raise `InputError` where a member would unpack to more than metadata or a chunk of such a zip is."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} is truncated, or no zip ({quoted(error)}): copy it anew") from error
    for member in members:
        text = member.filename.rsplit("/", 1)[-1] in ZARR_METADATA
        if text and member.file_size > _LARGEST_TEXT:
            raise InputError(f"{path} has metadata of {member.file_size:,} bytes: check where it came from")
        check_unpacked(member.file_size, member.compress_size, path)
        if member.flag_bits & 1:
            raise InputError(f"{path} is an encrypted zip: unpack it by hand, and give the folder")


def _remote(address: str, read_only: bool) -> Any:
    """A store on the network: through fsspec where it has the protocol's driver, else through obstore."""
    from zarr.storage import FsspecStore, ObjectStore

    problems = []
    try:
        return FsspecStore.from_url(address, read_only=read_only)
    except (ImportError, ValueError) as error:
        problems.append(error)
    except Exception as error:
        raise InputError(f"{address} cannot be reached ({quoted(error)}): check the address and your access") from error
    try:
        import obstore

        plain: Any = {"client_options": {"allow_http": True}} if address.startswith("http://") else {}
        return ObjectStore(obstore.store.from_url(address, **plain), read_only=read_only)
    except ImportError as error:
        problems.append(error)
    except Exception as error:
        raise InputError(f"{address} cannot be opened ({quoted(error)}): check the address and your access") from error
    raise InputError(
        f"{address} needs a driver that is not installed: pip install obstore, or fsspec's for this kind of address "
        "(s3fs, gcsfs, adlfs)"
    ) from problems[0]


def put(store: Any, key: str, content: bytes) -> None:
    """Write one key of a store, whole or not at all."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(content)))


def get(store: Any, key: str) -> bytes | None:
    """The content of a key, None where it is not there."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    found = sync(store.get(key, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def keys(store: Any, prefix: str) -> list[str]:
    """The keys that begin with a prefix."""
    from zarr.core.sync import sync

    async def collected() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sync(collected())


def delete(store: Any, key: str) -> None:
    """Remove one key, if it is there."""
    from zarr.core.sync import sync

    sync(store.delete(key))


def remove(store: Any) -> None:
    """Remove everything in a store."""
    from zarr.core.sync import sync

    root = getattr(store, "root", None)
    if not isinstance(root, Path):
        sync(store.clear())
    elif root.exists():
        shutil.rmtree(root)
