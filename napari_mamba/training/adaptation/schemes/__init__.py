"""Ways to learn from few, partial or no labels, by name: what one network, several of them or a mean teacher are told.

`supervised` counts known voxels alone; `mean_teacher` and `cross` also learn from images without labels; `scribbles`
fills what nobody painted; `masked` learns from images alone, before.
"""

from __future__ import annotations

from collections.abc import Mapping

from napari_mamba.training.adaptation.schemes.base import Scheme
from napari_mamba.training.adaptation.schemes.cross import CrossSupervised, Scribbles
from napari_mamba.training.adaptation.schemes.mean_teacher import MeanTeacher

SCHEMES: Mapping[str, type[Scheme]] = {
    "supervised": Scheme,
    "mean-teacher": MeanTeacher,
    "cross": CrossSupervised,
    "scribbles": Scribbles,
}

__all__ = ["SCHEMES", "CrossSupervised", "MeanTeacher", "Scheme", "Scribbles"]
