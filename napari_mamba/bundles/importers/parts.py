"""Networks that their authors save in several files, put together again: GFE-Mamba's classifier and generator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_mamba.bundles.importers.pickles import read_checkpoint
from napari_mamba.errors import BundleError, InputError
from napari_mamba.models.registry import tensors_of

_SUFFIXES = (".pth", ".pt", ".safetensors")
_KEYS = {"model": "vit_mid_linear.weight", "ft_model": "final_cross.k_proj.weight", "generator": "mid.pos_embedding"}
"""What only the weights of each part hold."""


def is_in_parts(folder: Path) -> bool:
    """Whether a folder holds the files of GFE-Mamba's classifier, by the name that its authors give one of them.

    >>> is_in_parts(Path("."))
    False
    """
    return folder.is_dir() and any("ft_model" in path.name for path in _files(folder))


def read_parts(folder: Path) -> Mapping[str, Any]:
    """The weights of all parts under the keys of one network.

    Raises
    ------
    BundleError
        If a part is missing, or two files are the same part.
    """
    from napari_mamba.models.tables.gfe_mamba import PARTS, joined

    found: dict[str, Mapping[str, Any]] = {}
    for path in _files(folder):
        tensors = _tensors(read_checkpoint(path))
        for part, key in _KEYS.items():
            if key not in tensors:
                continue
            if part in found:
                raise BundleError(f"{folder}: two files are GFE-Mamba's {part}: keep one of them")
            found[part] = tensors
    missing = [part for part in PARTS if part not in found]
    if missing:
        raise BundleError(
            f"{folder}: has no weights of GFE-Mamba's {' and '.join(missing)}: put the classifier's two files "
            "(best_model.pth, best_ft_model.pth) and the generator's beside one another"
        )
    return joined(*(found[part] for part in PARTS))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _tensors(checkpoint: Any) -> Mapping[str, Any]:
    """The tensors of a file, or of the one entry in it that holds any."""
    if not isinstance(checkpoint, Mapping):
        return {}
    for one in (checkpoint, *(entry for entry in checkpoint.values() if isinstance(entry, Mapping))):
        try:
            tensors = tensors_of(one)
        except InputError:
            continue
        if tensors:
            return {key.removeprefix("module."): value for key, value in tensors.items()}
    return {}
