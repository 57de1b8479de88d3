"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path, with the home folder in the place of a leading "~/"; a name such as "~scan.nii" is a name.

    `Path.expanduser` would take "~scan.nii" for the home folder of a user of that name.

    >>> expanded("~scan.nii.gz").name
    '~scan.nii.gz'
    """
    text = os.fspath(path)
    if text == "~" or text.startswith(("~/", f"~{os.sep}")):
        return Path(os.path.expanduser("~")) / text[2:]
    return Path(text)


def is_there(path: Path) -> bool:
    """Whether something is at a path that a stranger's table names: a name that no system takes is nowhere.

    >>> is_there(Path("x" * 5000))
    False
    """
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a zero byte
        return False
