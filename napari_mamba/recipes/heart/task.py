"""What `heart-mr` is asked: classes, codes of partial labels, who is held out, and the networks compared.

Data: the Sunnybrook cardiac data (Radau et al., The MIDAS Journal, 2009), CC0 1.0.
"""

from __future__ import annotations

import zlib
from typing import Any

BACKGROUND, CAVITY, WALL = 0, 1, 2
CLASSES = {CAVITY: "left ventricular cavity", WALL: "left ventricular wall"}

NOT_CAVITY = 3
"""Code of a voxel that is background or wall: only the cavity was drawn there."""
UNKNOWN = 4
"""Code of a voxel about which nothing was drawn."""
NOT_DRAWN = 255
"""In the data's own label files."""
REACH = 30.0
"""Millimetres from the cavity's border beyond which nothing is its wall; hypertrophy seldom exceeds 30 mm."""

SPACING = 1.55
"""Pixel side in mm that images are brought to: 144 pixels of 1.37 mm fit 128. Slices stay as they are."""
WINDOW = (8, 128, 128)
"""Slices and pixels of a training sample."""
TILE = (224, 224)
"""Pixels that are run at once: most slices whole."""
PREPARATION: tuple[dict[str, Any], ...] = (
    {"step": "resample", "spacing": [None, SPACING, SPACING], "order": 1},
    {"step": "normalise", "schemes": [{"scheme": "percentile", "lower": None, "upper": 99}]},
)
BRIGHT = 99
"""Percentile of the image that becomes 1; what is brighter, fat mostly, is cut there."""

_SIZES: dict[str, Any] = {
    "input_channels": 1,
    "num_classes": 3,
    "n_conv_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
    "generation": "v1",
}
ALONG: dict[str, Any] = _SIZES | {
    "spatial_dims": 3,
    "features_per_stage": [16, 32, 64, 128, 128],
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2], [1, 2, 2]],
}
"""A 3D network whose first axis is slices or phases: never pooled, and looked along from the third stage on."""
PLANE: dict[str, Any] = _SIZES | {
    "spatial_dims": 2,
    "features_per_stage": [24, 48, 96, 176, 240],
    "kernel_sizes": 3,
    "strides": [1, 2, 2, 2, 2],
}
"""A 2D network of about as many parameters, which sees one slice."""
UNET_FEATURES = [16, 32, 64, 128, 136]
"""Of the same network without scans, to have as many parameters."""
FIRST_SCAN = 2
"""Scans over the two finest maps would take most of the time on a CPU."""

MISPLACED = frozenset({"SC-N-06"})
"""People whose stacks' labels lie beside the heart in the data (by some 12 pixels): measured, but told apart."""


def part(person: str) -> str:
    """Which part of the split a person is in: "test", "validation" or "training", by a checksum of the name.

    The checksum's salt is the first one with 5 of the 29 people in the test, of all four groups and one of them with a
    cine whose wall was drawn, and 3 of other groups in the validation; it was chosen before anything was trained.

    Examples
    --------
    >>> part("SC-N-06"), part("SC-HYP-06"), part("SC-HF-I-01")
    ('test', 'validation', 'training')
    """
    percent = zlib.crc32(f"heart-1357-{person}".encode()) % 100
    return "test" if percent < 18 else "validation" if percent < 30 else "training"
