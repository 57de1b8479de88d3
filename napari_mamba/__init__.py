"""Mamba (state-space) models for medical volumes: segment, restore, classify, and see how."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("napari-mamba")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"

# Resolved at first use, so that `import napari_mamba` costs neither torch nor SimpleITK.
_LAZY = {
    "Volume": "napari_mamba.volume",
    "read": "napari_mamba.io",
    "write": "napari_mamba.io",
    "run": "napari_mamba.engine",
    "run_to_end": "napari_mamba.engine",
    "RunOptions": "napari_mamba.engine",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
