"""From the volumes of each frame of a beating heart to what they say of the beat; definitions as napari_mamba.heart.

Schulz-Menger et al., Journal of Cardiovascular Magnetic Resonance 22:19, 2020. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CAVITY, WALL = "SCT:87878005", "SCT:74281007"
_GRAMS_A_ML = 1.05


def volumes_by_class(tables: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """Volume of each class in each frame; `tables` are the `table` of each frame's result.

    >>> volumes_by_class([[{"name": "a", "ml": 1.0}], [{"name": "a", "ml": 3.0}]])
    {'a': [1.0, 3.0]}
    """
    found: dict[str, list[float]] = {}
    for row in tables[0] if tables else []:
        found[str(row["name"])] = []
    for rows in tables:
        ml = {str(row["name"]): float(row["ml"]) for row in rows}
        for name, values in found.items():
            values.append(ml.get(name, 0.0))
    return found


def beat(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[str, float, str]]:
    """Name, value and unit of each number of a beat; empty where no left ventricle was labelled in two frames.

    Examples
    --------
    >>> rows = [[{"name": "LV", "code": CAVITY, "ml": ml}] for ml in (100.0, 40.0)]
    >>> beat(rows)[-1]
    ('ejection fraction', 60.0, '%')
    """
    names = {str(row.get("code")): str(row["name"]) for rows in tables for row in rows}
    curves = volumes_by_class(tables)
    cavity = curves.get(names.get(CAVITY, ""), [])
    if len(cavity) < 2 or max(cavity) <= 0:
        return []
    full, empty = max(cavity), min(cavity)
    found = [("end-diastolic volume", full, "ml"), ("end-systolic volume", empty, "ml")]
    found += [("stroke volume", full - empty, "ml")]
    wall = curves.get(names.get(WALL, ""), [])
    if wall and wall[cavity.index(full)] > 0:
        found.append(("wall mass", _GRAMS_A_ML * wall[cavity.index(full)], "g"))
    return [*found, ("ejection fraction", 100 * (full - empty) / full, "%")]
