"""Where an imported bundle goes, and what it is called."""

from __future__ import annotations

import os
import re
from pathlib import Path

from napari_mamba.bundles.bundle import user_folder
from napari_mamba.bundles.writer import check_destination
from napari_mamba.io.paths import expanded


def place_for(destination: str | os.PathLike[str] | None, name: str, overwrite: bool) -> Path:
    """The folder or ".zip" to write: `destination`, or the bundle's name in the user's folder of bundles.

    Raises `OutputError` if a bundle may not be written there: importers ask before they do the work.
    """
    place = expanded(destination) if destination is not None else user_folder() / name
    check_destination(place, overwrite)
    return place


def plain_name(text: str) -> str:
    """A text as the name of a bundle, which is a folder's too.

    Examples
    --------
    >>> plain_name("Spleen CT (v2)")
    'spleen-ct-v2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
