"""The machinery of any training: the loop, optimisers, augmentation, scores, and how a bundle is written.

What is trained on which data is a recipe's: see `napari_mamba.recipes`.
"""

from importlib import import_module
from typing import Any

__all__ = ["Recipe", "Schedule"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # PyTorch takes seconds to import, and a window reads this room's options alone
        return getattr(import_module("napari_mamba.training.recipe"), name)
    if name in ("RECIPES", "evaluate", "recipe", "train"):  # where they were until version 0.1
        return getattr(import_module("napari_mamba.recipes"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
