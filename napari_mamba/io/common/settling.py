"""Folders that go for good: when one of Zarr's writes fails, the call ends and the others are still at work."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def settle(seconds: float = 10.0) -> None:
    """Wait for what Zarr still writes in its own event loop, for at most `seconds`.

    Whatever it writes after a store was removed makes the store's folder anew. Nothing is waited for where no Zarr was
    imported.

    Examples
    --------
    >>> settle()
    """
    if (zarr_sync := sys.modules.get("zarr.core.sync")) is None or (loop := zarr_sync.loop[0]) is None:
        return

    async def others() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    with suppress(TimeoutError, RuntimeError):  # a loop that has ended
        asyncio.run_coroutine_threadsafe(others(), loop).result(seconds + 1)


def remove_for_good(folder: Path) -> None:
    """Remove a folder after a failure, and what Zarr's threads are about to write into it.

    A thread whose task was cancelled runs on, and nobody can wait for it: the folder has to stay away for a while.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> remove_for_good(folder)
    >>> folder.exists()
    False
    """
    settle()
    away = 0
    for _ in range(60):
        shutil.rmtree(folder, ignore_errors=True)
        away = 0 if folder.exists() else away + 1
        if away == 3:
            return
        time.sleep(0.05)


@contextmanager
def scratch_folder(prefix: str, parent: Path | str | None = None) -> Iterator[Path]:
    """A new folder, removed with what is in it when the block ends; what the block raises is raised as it is.

    `tempfile.TemporaryDirectory` removes once: after a write to a store that failed, Zarr's threads may still write
    chunks, so that it raises that the folder is not empty in place of what went wrong, or leaves the folder.

    Parameters
    ----------
    prefix : str
        Of the folder's name.
    parent : Path or str, optional
        Where it is made; else the system's folder for such.

    Examples
    --------
    >>> with scratch_folder(".example-") as folder:
    ...     _ = (folder / "a").write_text("b")
    >>> folder.exists()
    False
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    except BaseException:
        remove_for_good(folder)
        raise
    shutil.rmtree(folder, ignore_errors=True)
