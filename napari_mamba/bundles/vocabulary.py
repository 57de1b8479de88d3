"""The words of `bundle.json`: tasks, activations, steps of preparation and postprocessing with their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

FORMAT = "napari-mamba bundle"
FORMAT_VERSION = 1
TASKS = (
    "segmentation", "restoration", "classification", "dose", "registration", "slide", "fusion", "diffusion",
    "prediction", "features",
)  # fmt: skip
WITHOUT_CLASSES = ("restoration", "dose", "registration", "fusion", "diffusion", "prediction", "features")
LATERALITIES = ("", "left", "right", "both")
ACTIVATIONS = ("softmax", "sigmoid", "none")
STEPS: Mapping[str, frozenset[str]] = {
    "orient": frozenset({"axcodes"}),
    "transpose": frozenset({"axes"}),
    "crop_nonzero": frozenset({"keep_mask"}),
    "crop_to_body": frozenset({"margin", "multiple"}),
    "normalise": frozenset({"schemes"}),
    "field_of_view": frozenset({"mm", "max_mm"}),
    "resample": frozenset({"spacing", "order", "order_z", "anisotropy", "order_probabilities", "file_axes", "keep"}),
    "resize": frozenset({"shape", "antialias"}),
    "refine": frozenset({"spacing", "order", "max_factor", "profile", "data_consistency"}),
    "append_upsampling_channel": frozenset(),
    "respace": frozenset({"spacing"}),
    "binarise": frozenset({"smallest", "ml"}),
    "signed_distance": frozenset({"limit"}),
    "centre": frozenset({"size", "min_coverage", "require_whole"}),
    "slice_axis_first": frozenset(),
    "planning_grid": frozenset({"sides", "slices", "usual"}),
}
"""Preparation steps, and the options each takes beside its name; see `napari_mamba.engine.preparation`."""
POSTPROCESSING_STEPS: Mapping[str, frozenset[str]] = {
    "keep_largest": frozenset({"indices", "as_one_structure"}),
    "warn_volume": frozenset({"ml", "what", "indices"}),
    "warn_missing": frozenset({"allowed", "smallest"}),
    "warn_sides": frozenset({"pairs", "difference", "smallest"}),
    "warn_pieces": frozenset({"most", "indices", "smallest"}),
    "warn_position": frozenset({"rules", "smallest"}),
    "warn_mirrored": frozenset({"dice"}),
    "warn_thick": frozenset({"rules"}),
    "warn_unlike": frozenset({"rules"}),
}
"""Steps of a segmentation's postprocessing; `napari_mamba.engine.answers.postprocessing` carries them out."""

Dtype = Literal["float32", "float16", "int8"]
"""How a file holds floating-point weights."""
