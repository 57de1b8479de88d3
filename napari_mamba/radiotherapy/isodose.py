"""Isodose lines: levels in Gy or percent of a prescription, their colours, and the lines in a slice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError

DEFAULT = "107%, 100%, 95%, 90%, 80%, 70%, 50%, 30%, 10%"
COLORS = ("#ff2d95", "#ff3b30", "#ff9500", "#ffd60a", "#34c759", "#30d5c8", "#0a84ff", "#5e5ce6", "#8e8e93")
"""Of the levels, from the hottest on; the last one is for all that follow."""

_LEVEL = re.compile(r"(\d+(?:\.\d+)?)\s*(%|c?gy)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Level:
    """An isodose: `dose` in Gy, its `label` and "#rrggbb"."""

    dose: float
    label: str
    color: str


def levels(text: str = DEFAULT, prescription: float | None = None) -> list[Level]:
    """Levels from text such as "95%, 20 Gy, 5", hottest first.

    Parameters
    ----------
    text : str
        Separated by commas; a bare number is in Gy.
    prescription : float, optional
        Gy that are 100%.

    Raises
    ------
    InputError
        If a level is no dose, or a percentage and there is no prescription.

    Examples
    --------
    >>> [(level.dose, level.label) for level in levels("50%, 20 Gy", 70.0)]
    [(35.0, '50%'), (20.0, '20 Gy')]
    """
    parts = [part.strip() for part in text.split(",")]
    found = [level(part, "", prescription) for part in parts]
    doses = {one.dose: one.label for one in found}
    order = sorted(doses, reverse=True)
    return [Level(dose, doses[dose], COLORS[min(n, len(COLORS) - 1)]) for n, dose in enumerate(order)]


def level(text: str, color: str, prescription: float | None = None) -> Level:
    """One level from "95%", "20 Gy" or "20", in a colour; raises `InputError` as `levels` does.

    >>> level("95%", "#ff0000", 60.0)
    Level(dose=57.0, label='95%', color='#ff0000')
    """
    found = _LEVEL.match(text.strip())
    if not found or not float(found[1]) > 0:
        raise InputError(f"{text.strip()!r} is no isodose: write 95% or 20 Gy")
    value = float(found[1])
    if (found[2] or "").lower() == "cgy":
        value /= 100
    if found[2] != "%":
        return Level(value, f"{value:g} Gy", color)
    if not prescription:
        raise InputError("an isodose in percent needs a prescription: give it in Gy")
    return Level(value * prescription / 100, f"{value:g}%", color)


def lines(dose: np.ndarray, wanted: Sequence[Level]) -> list[tuple[Level, list[np.ndarray]]]:
    """The lines of each level in a slice.

    Parameters
    ----------
    dose : (Y, X) array
        Gy.
    wanted : sequence of Level

    Returns
    -------
    list of (Level, list of (N, 2) array)
        Points (y, x) in voxels. Lines end at the image's border.
    """
    from skimage.measure import find_contours

    return [(level, find_contours(np.asarray(dose, np.float64), level.dose)) for level in wanted]
