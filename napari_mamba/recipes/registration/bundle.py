"""What the registration recipe leaves: weights with what built their network, since bundles hold no warps yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.errors import InputError
from napari_mamba.recipes.measurement import Measurement, OnCase
from napari_mamba.recipes.registration.recipe import FEATURES
from napari_mamba.recipes.registration.weights import save
from napari_mamba.training.recipe import Recipe


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the averaged weights in float16 with what built their network."""
    return save(destination, weights, {"features": list(FEATURES), "first_scan": 2}, history)


def evaluate(recipe: Recipe, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """Raise `InputError`: a registration is measured beside the affine alone and SyN, by a benchmark of its own."""
    raise InputError(f"{recipe.name} has no evaluation yet: it is to be compared with the affine alone and with SyN")


def card(metrics: Mapping[str, Any]) -> str:
    """What is known of it, in Markdown."""
    return "# brain-register-mr\n\nNot measured yet. Research on MR of the head. **Not for clinical use.**\n"
