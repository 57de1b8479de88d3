"""Corrections of one class of a label map: islands, holes, smoothing, margins, slices in between.

Each function takes and gives a mask of the class; `change` says which voxels of the label map that alters. napari
sets those in one undoable step.
"""

from napari_mamba.editing.apply import Change, change, edit_class
from napari_mamba.editing.interpolation import interpolate_slices
from napari_mamba.editing.islands import fill_holes, keep_largest_island, remove_islands
from napari_mamba.editing.margin import grow, shrink
from napari_mamba.editing.smoothing import smooth

__all__ = [
    "Change",
    "change",
    "edit_class",
    "fill_holes",
    "grow",
    "interpolate_slices",
    "keep_largest_island",
    "remove_islands",
    "shrink",
    "smooth",
]
