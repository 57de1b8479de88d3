"""The numbers that are read off a dose-volume histogram, by the names that planners give them.

Definitions: ICRU Report 83 (2010), chapter 3, and the AAPM's task group 263 for the names ("D95%[Gy]", "V20Gy[cc]").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from napari_mamba.errors import InputError

GRAY, PERCENT, VOLUME = "Gy", "%", "cm³"
"""Units of what is measured."""

_CUBIC = ("cc", "cm3", "cm³", "ml")
_DOSE_AT = re.compile(r"D_?(\d+(?:\.\d+)?)(cc|cm3|cm³|ml|%)?(?:[\[(](gy)[\])])?$", re.IGNORECASE)
_VOLUME_AT = re.compile(r"V_?(\d+(?:\.\d+)?)(gy|cgy|%)?(?:[\[(](%|cc|cm3|cm³|ml)[\])])?$", re.IGNORECASE)
_WORD = re.compile(r"d?_?(mean|max|min)(?:dose)?(?:[\[(]gy[\])])?$", re.IGNORECASE)
_WORDS: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "max": np.max, "min": np.min}


@dataclass(frozen=True)
class Measure:
    """What a name stands for.

    Attributes
    ----------
    unit : str
        `GRAY`, `PERCENT` or `VOLUME`, of the number that comes out.
    word : str
        "mean", "max" or "min"; empty for a dose at a volume, or a volume at a dose.
    at : float
        The volume, or the dose, at which it is read off.
    of : str
        What `at` is in, of the same three units; `PERCENT` of a dose is of the prescription.
    """

    unit: str
    word: str = ""
    at: float = 0.0
    of: str = ""

    @property
    def prescribed(self) -> bool:
        """Whether it needs a prescription."""
        return self.unit != GRAY and self.of == PERCENT


@lru_cache(maxsize=256)
def parsed(what: str) -> Measure:
    """What a measure's name stands for.

    Raises
    ------
    InputError
        If it is the name of none.

    Examples
    --------
    >>> parsed("V20Gy[cc]").unit, parsed("D2cc").of, parsed("V95%").prescribed
    ('cm³', 'cm³', True)
    """
    name = what.strip().replace(" ", "")
    if found := _WORD.match(name):
        return Measure(GRAY, found[1].lower())
    if found := _DOSE_AT.match(name):
        unit = VOLUME if (found[2] or "%").lower() in _CUBIC else PERCENT
        if unit == VOLUME or float(found[1]) <= 100:
            return Measure(GRAY, at=float(found[1]), of=unit)
    if found := _VOLUME_AT.match(name):
        dose = (found[2] or "gy").lower()
        unit = VOLUME if (found[3] or "%").lower() in _CUBIC else PERCENT
        return Measure(unit, at=float(found[1]) / (100 if dose == "cgy" else 1), of=PERCENT if dose == "%" else GRAY)
    raise InputError(f"{what!r} is no measure of a histogram: use D95, D0.1cc, V20, mean, max or min")


def measure(doses: np.ndarray, what: str, voxel: float, prescription: float | None = None) -> float:
    """A number of a histogram, by its usual name.

    Parameters
    ----------
    doses : array
        Gy, of a structure's voxels; one at least.
    what : str
        "D95" (Gy to the hottest 95%), "D0.1cc" or "D2cc" (Gy to the hottest cm³), "V20" (percent that get 20 Gy or
        more), "V20Gy[cc]" (the same in cm³), "V95%" (percent that get 95% of the prescription), "mean", "max" or "min".
    voxel : float
        Volume of a voxel, mm³.
    prescription : float, optional
        Gy that are 100% of a dose.

    Raises
    ------
    InputError
        For another name, or a dose in percent without a prescription.

    Examples
    --------
    >>> measure(np.arange(101.0), "D95", 1.0), measure(np.arange(100.0), "V20", 1.0)
    (5.0, 80.0)
    """
    wanted = parsed(what)
    if wanted.word:
        return float(_WORDS[wanted.word](doses))
    if wanted.unit == GRAY:
        if wanted.of == VOLUME:
            return dose_at_volume(doses, wanted.at, voxel)
        return dose_at_percent(doses, wanted.at)
    dose = wanted.at
    if wanted.prescribed:
        if not prescription:
            raise InputError(f"{what} is in percent of a prescription, and there is none: write V66.5 for 66.5 Gy")
        dose *= prescription / 100
    share = volume_at(doses, dose)
    return share if wanted.unit == PERCENT else share * doses.size * voxel / 1e5


def dose_at_percent(doses: np.ndarray, percent: float) -> float:
    """The dose in Gy that the hottest `percent` of the voxels get at least, interpolated between voxels."""
    return float(np.percentile(doses, 100 - percent))


def dose_at_volume(doses: np.ndarray, volume: float, voxel: float) -> float:
    """The dose in Gy that the hottest `volume` (cm³) gets at least, in whole voxels of `voxel` mm³, one at least."""
    hottest = max(1.0, np.round(1000 * volume / voxel))
    return float(np.percentile(doses, max(0.0, 100 - 100 * hottest / doses.size)))


def volume_at(doses: np.ndarray, dose: float) -> float:
    """Percent of the voxels that get at least `dose` Gy."""
    return float(100 * np.mean(doses >= dose))
