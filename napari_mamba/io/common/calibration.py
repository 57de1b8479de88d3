"""How a TIFF keeps an oblique affine, for which neither ImageJ's nor OME's metadata has a place.

The standard fields hold spacing and unit, for every reader; a comment of ours holds the affine, for `io.read`. It
counts only while the image still has the shape and spacing it was written with.
"""

from __future__ import annotations

import json
import re

import numpy as np

KEY = "napari_mamba_grid"


def note(affine: np.ndarray, shape: tuple[int, int, int]) -> str:
    """The comment, one line of JSON."""
    return json.dumps({"affine_zyx_to_ras_mm": np.asarray(affine).tolist(), "shape_zyx": list(shape)})


def kept_affine(text: str | None, shape: tuple[int, int, int], spacing: np.ndarray) -> np.ndarray | None:
    """The affine in a comment, or None if there is none or the image was cropped or resampled since."""
    match = re.search(r"\{[^{}]*affine_zyx_to_ras_mm[^{}]*\}", text or "")
    if match is None:
        return None
    try:
        content = json.loads(match.group())
        affine = np.array(content["affine_zyx_to_ras_mm"], dtype=np.float64).reshape(4, 4)
    except (ValueError, KeyError, TypeError):
        return None
    same = list(shape) == content.get("shape_zyx")
    same = same and np.allclose(np.linalg.norm(affine[:3, :3], axis=0), spacing, rtol=1e-3)
    return affine if same else None
