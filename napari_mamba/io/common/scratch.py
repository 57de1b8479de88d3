"""A folder for a while, gone afterwards even where threads of Zarr still write into it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_mamba.io.common.settling import remove_for_good


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
