"""Which importer a path is for."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from napari_mamba.bundles.importers.nnunet import import_nnunet
from napari_mamba.bundles.importers.plain import import_weights
from napari_mamba.errors import BundleError


def import_checkpoint(
    path: str | os.PathLike[str], destination: str | os.PathLike[str] | None = None, **choices: Any
) -> Path:
    """Turn a foreign checkpoint into a bundle, by the importer that fits it.

    Parameters
    ----------
    path : path
        A results folder of nnU-Net v2, or a file of weights (a state_dict, or a checkpoint that holds one).
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    **choices
        What the importer asks for: see `import_nnunet` and `import_weights`.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If nothing here can read `path`, or a choice is not one of the importer's.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise BundleError(f"{path}: no such file or folder: check the path")
    importer: Any = import_nnunet if path.is_dir() else import_weights
    known = inspect.signature(importer).parameters
    if odd := sorted(choices.keys() - known.keys()):
        what = "a results folder of nnU-Net" if path.is_dir() else "a file of weights"
        raise BundleError(f"{path}: is {what}, for which {odd[0]!r} says nothing: leave it out")
    return importer(path, destination, **choices)
