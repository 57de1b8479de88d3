"""Write beside, then rename: an output is there whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_mamba.errors import NapariMambaError, OutputError
from napari_mamba.io.common.guard import shortened
from napari_mamba.io.common.settling import remove_for_good

_LONGEST_NAME = 255  # bytes, of nearly every disk
_REASONS = {
    errno.ENOSPC: "no space is left on its disk: free some, or choose another folder",
    errno.EDQUOT: "your disk quota is used up: free some space, or choose another folder",
    errno.EFBIG: "the file grows larger than its disk or your limits allow: choose another folder",
    errno.EACCES: "you may not write there: choose another folder",
    errno.EPERM: "you may not write there: choose another folder",
    errno.EROFS: "its disk is read-only: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EISDIR: "a folder of that name is there: choose another name",
    errno.ENOTEMPTY: "a folder of that name is there: choose another name",
}


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if nothing can be put at `path`. It is tried: permissions do not tell of read-only disks."""
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist, create it first")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} is already there: choose to overwrite it, or another name")
    check_length(path)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}."):
            pass
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from error


def check_length(path: Path) -> None:
    """Raise `OutputError` where no disk takes a name so long."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(f"{path} cannot be written: {_REASONS[errno.ENAMETOOLONG]}")


def reason_of(error: OSError) -> str:
    """What a failure to write comes from, and what to do."""
    return _REASONS.get(error.errno or 0, f"{error.strerror or error}: check the folder and its free space")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path to write to, and move what was written to `path` once the block ends without an error.

    The path given has the same name, in a temporary folder beside `path`, on the same disk. Other files that the
    block writes next to it (the voxels of an MHD) move too, before it. The temporary folder is removed in any case.

    Parameters
    ----------
    path : Path
        Where the file or folder is to be. One already there is replaced.

    Raises
    ------
    OutputError
        If the folder is missing or not writable, the disk is full, or the writer failed.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist, create it first")
    folder = None
    try:
        _remove_leftovers(path)
        folder = Path(tempfile.mkdtemp(prefix=f"{_prefix(path)}{os.getpid()}-", dir=path.parent))
        temporary = folder / path.name
        yield temporary
        for other in sorted(folder.iterdir()):
            if other != temporary:
                os.replace(other, path.parent / other.name)
        _replace(temporary, path)
        shutil.rmtree(folder, ignore_errors=True)
        folder = None
    except NapariMambaError as error:
        if folder is not None and (text := str(error).replace(str(folder), str(path.parent))) != str(error):
            raise type(error)(text) from error
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from error
    except MemoryError as error:
        raise OutputError(f"{path} cannot be written: the computer's memory is full, close other programs") from error
    except Exception as error:  # writers of many formats: whatever they raise, the user gets one sentence
        reason = shortened(f"{path} cannot be written: {_last_line(error)}; {_space(path, error)}")
        raise OutputError(reason) from error
    finally:
        if folder is not None:
            remove_for_good(folder)


def _prefix(path: Path) -> str:
    """What temporary folders for `path` begin with: the name, and this computer's, whose processes are known here."""
    host = zlib.crc32(platform.node().encode())
    return f".{path.name[:40]}.{host:08x}-"


def _remove_leftovers(path: Path) -> None:
    """Remove temporary folders of writers that were killed: of this computer, and no longer running."""
    prefix = _prefix(path)
    for other in path.parent.glob(f"{glob.escape(prefix)}*-*"):
        number = other.name.removeprefix(prefix).partition("-")[0]
        if number.isdigit() and other.is_dir() and not _is_running(int(number)):
            shutil.rmtree(other, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid() or os.name == "nt":  # Windows: os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _replace(temporary: Path, path: Path) -> None:
    """`os.replace`, also of a folder by a folder (a Zarr store); the old one comes back if the new one cannot move."""
    if not (temporary.is_dir() and path.is_dir()):
        os.replace(temporary, path)
        return
    old = temporary.with_name(temporary.name + ".replaced")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(old, path)
        raise


def _last_line(error: Exception) -> str:
    if "ITK" in str(error) or "itk" in str(error):
        return "the file could not be written whole"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def _space(path: Path, error: Exception) -> str:
    free = shutil.disk_usage(path.parent).free
    if free > 1 << 30 and not isinstance(error, RuntimeError):  # SimpleITK's only word for a full disk
        return "choose another format or folder"
    return f"{free / 1e9:.1f} GB are free there, free more or choose another folder"
