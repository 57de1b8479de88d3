"""What a CT is shown from and to: its own window (PS3.3, C.11.2), or the usual one of soft tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOFT_TISSUE = (-160.0, 240.0)
"""HU: centre 40, width 400."""


def ct_window(files: Sequence[Path]) -> tuple[float, float] | None:
    """Lowest and highest HU to show of a CT series; None for other images, which have no scale of their own.

    Parameters
    ----------
    files : sequence of Path
        Of the series; the middle one is looked at.
    """
    if not files:
        return None
    import pydicom

    try:
        names = ["Modality", "WindowCenter", "WindowWidth"]
        tags = pydicom.dcmread(files[len(files) // 2], stop_before_pixels=True, specific_tags=names)
        if tags.get("Modality") != "CT":
            return None
    except Exception:  # gone or damaged since it was read: it is shown as any image
        return None
    try:
        center, width = _first(tags.get("WindowCenter")), _first(tags.get("WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return SOFT_TISSUE
    low, high = center - width / 2, center + width / 2
    return (low, high) if 1 <= width <= 8000 and low >= -2000 and high <= 8000 else SOFT_TISSUE


def _first(value: Any) -> float:
    """Of several windows the first, as viewers show it."""
    return float(value if isinstance(value, str | int | float) else value[0])
