"""Which importer a path is for."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from napari_mamba.bundles.doors import explained
from napari_mamba.bundles.importers.archives import names_in, unpacked
from napari_mamba.bundles.importers.monai.bundle import import_monai
from napari_mamba.bundles.importers.nnunet.v1 import import_nnunet_v1
from napari_mamba.bundles.importers.nnunet.v2 import import_nnunet
from napari_mamba.bundles.importers.parts import is_in_parts
from napari_mamba.bundles.importers.plain import import_weights
from napari_mamba.bundles.progress import OnProgress, part, silent
from napari_mamba.errors import BundleError, UnsaidError
from napari_mamba.io.paths import expanded

_WHAT: dict[Callable[..., Path], str] = {
    import_nnunet: "a results folder of nnU-Net",
    import_nnunet_v1: "a results folder of nnU-Net v1",
    import_monai: "a MONAI bundle",
    import_weights: "a file of weights",
}
_MAX_DEPTH = 6


@explained
def import_checkpoint(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    on_progress: OnProgress = silent,
    **choices: Any,
) -> Path:
    """Turn a foreign checkpoint into a bundle, by the importer that fits it.

    Parameters
    ----------
    path : path
        A results folder of nnU-Net v2 or v1, a MONAI bundle, a zip of one of them (`nnUNetv2_export_model_to_zip`
        makes one), or a file of weights (a state_dict, or a checkpoint that holds one), or a folder
        with GFE-Mamba's three files.
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    on_progress : callable, optional
        Told what is being done, and the share of the whole that is done (0 to 1).
    **choices
        What the importer asks for: see `import_nnunet`, `import_nnunet_v1`, `import_monai` and `import_weights`.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If nothing here can read `path`, or a choice is not one of the importer's.
    """
    path = expanded(path)
    if not path.exists():
        raise BundleError(f"{path}: no such file or folder: check the path")
    names = _names(path)
    weights = path.is_file() or is_in_parts(path)
    importer = importer_for(names) or (import_weights if weights else import_nnunet)
    known = inspect.signature(importer).parameters
    if odd := sorted(choices.keys() - known.keys()):
        raise BundleError(f"{path}: is {_WHAT[importer]}, for which {odd[0]!r} says nothing: leave it out")
    zipped = path.is_file() and importer is not import_weights
    unpacking, importing = part(on_progress, 0, 0.3), part(on_progress, 0.3 if zipped else 0, 1)
    with unpacked(path, _of_use, unpacking) if zipped else nullcontext(path) as at:
        try:
            return importer(at, destination, on_progress=importing, **choices)
        except UnsaidError:
            raise
        except BundleError as error:
            raise BundleError(str(error).replace(str(at), str(path))) from error


def importer_for(names: list[str]) -> Callable[..., Path] | None:
    """The importer for a folder or zip with these files, if one shows by them."""
    files = [PurePosixPath(name) for name in names]
    if any(file.name.endswith(".model.pkl") for file in files):
        return import_nnunet_v1
    if any(file.name == "plans.json" or (file.suffix == ".pth" and "fold_" in file.parent.name) for file in files):
        return import_nnunet
    if any(file.name == "metadata.json" and file.parent.name == "configs" for file in files):
        return import_monai
    return None


def _names(path: Path) -> list[str]:
    if path.is_file():
        return names_in(path)
    found = []
    for folder, folders, files in os.walk(path):
        depth = len(Path(folder).relative_to(path).parts)
        found += [(Path(folder) / file).relative_to(path.parent).as_posix() for file in files]
        if depth >= _MAX_DEPTH:
            folders.clear()
    return found


def _of_use(name: str) -> bool:
    """Whether a file of a zipped training is read: not its plots and logs."""
    return name.lower().endswith((".json", ".pth", ".pt", ".model", ".pkl", ".safetensors", ".yaml", ".yml"))
