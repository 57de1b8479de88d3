"""The journal of a run into a store: what it is a run of, and which blocks of it are written.

It lies beside the store, as NAME.unfinished, and is removed when the store is whole. A block has its entry when all
its chunks are on the disk, never before; what has none is written again. Entries are files of their own, so that
processes on several machines write them without knowing of one another.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Any

from napari_mamba.errors import OutputError
from napari_mamba.io.stores import address_of, delete, get, is_address, keys, open_store, put, remove

_LEASE = 90.0
"""Seconds after which a lock in an object store that nobody renews belongs to nobody."""
_FACTS, _DONE, _LOCK = "run.json", "done/", "lock.json"


class Journal:
    """The journal of one store.

    Parameters
    ----------
    target : str or path
        The store's place or address.
    """

    def __init__(self, target: str | os.PathLike[str]):
        self.target = address_of(target)
        self.place = self.target.rstrip("/") + ".unfinished"
        self.store = open_store(self.place, read_only=False)

    def facts(self) -> dict[str, Any] | None:
        """What the run was begun with; None where there is none, or its first words were cut off."""
        return _parsed(get(self.store, _FACTS))

    def begin(self, facts: dict[str, Any]) -> None:
        """Note what the run is of."""
        put(self.store, _FACTS, json.dumps(facts).encode())

    def done(self) -> dict[str, dict[str, Any]]:
        """Facts about each block that is written, by its key."""
        found = {}
        for key in keys(self.store, _DONE):
            if key.endswith(".json") and (facts := _parsed(get(self.store, key))) is not None:
                found[key[key.index(_DONE) + len(_DONE) : -len(".json")]] = facts
        return found

    def has(self, key: str) -> bool:
        """Whether a block is written."""
        return _parsed(get(self.store, f"{_DONE}{key}.json")) is not None

    def note(self, key: str, facts: dict[str, Any]) -> None:
        """A block is written."""
        put(self.store, f"{_DONE}{key}.json", json.dumps(facts).encode())

    def clear(self) -> None:
        """Forget what an earlier run has noted."""
        for key in (_FACTS, *keys(self.store, _DONE)):
            delete(self.store, key)

    def remove(self) -> None:
        """The store is whole."""
        with suppress(OSError):
            remove(self.store)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the store. A run that was killed leaves no lock behind, in an object store for 90 s.

        Raises
        ------
        OutputError
            If another run writes there, or nothing can be written.
        """
        with self._lease() if is_address(self.place) else self._file_lock():
            yield

    @contextmanager
    def _file_lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        folder = Path(self.place)
        was_there = folder.exists()
        try:
            folder.mkdir(exist_ok=True)
            lock = FileLock(folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            raise OutputError(_taken(self.target)) from error
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or "its disk has no locks"
            raise OutputError(f"{self.target} cannot be written ({reason}): choose another folder") from error
        try:
            yield
        finally:
            lock.release()
            if not was_there and folder.is_dir() and {one.name for one in folder.iterdir()} <= {".lock"}:
                self.remove()  # nothing was begun

    @contextmanager
    def _lease(self) -> Iterator[None]:
        mine, ended = uuid.uuid4().hex, threading.Event()

        def renew() -> None:
            put(self.store, _LOCK, json.dumps({"of": mine, "host": socket.gethostname(), "time": time()}).encode())

        held = _parsed(get(self.store, _LOCK))
        if held is not None and time() - float(held.get("time", 0)) < _LEASE:
            raise OutputError(_taken(self.target))
        renew()
        if (_parsed(get(self.store, _LOCK)) or {}).get("of") != mine:
            raise OutputError(_taken(self.target))

        def keep() -> None:
            while not ended.wait(_LEASE / 4):
                with suppress(Exception):  # one that fails is repeated, and a store that is gone ends the run itself
                    renew()

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(Exception):
                put(self.store, _LOCK, b"{}")


def _taken(target: str) -> str:
    return f"another run is writing into {target}: wait for it, or choose another name"


def _parsed(content: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(content) if content else None
    except ValueError:  # the power went while it was written
        return None
    return found if isinstance(found, dict) else None
