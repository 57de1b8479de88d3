"""Doses and structures looked at together: histograms, a table and goals of each dose, on the structures' grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy import comparison
from napari_mamba.radiotherapy.dvh import histogram
from napari_mamba.radiotherapy.dvh.goals import Goal, Judged, judged
from napari_mamba.radiotherapy.dvh.histogram import Curve
from napari_mamba.radiotherapy.structures import Structure, StructureSet, is_outline, prescription_of
from napari_mamba.volume import Volume


@dataclass(frozen=True, eq=False)
class Reviewed:
    """What there is to say about some doses.

    Attributes
    ----------
    rows : list of dict
        "dose", "structure", the columns of `histogram.table` and "volume"; all structures of a dose, then the next.
    curves : dict of str to list of Curve
        By the dose's name.
    goals : dict of str to list of Judged
        By the dose's name, in the order of the goals.
    notes : tuple of str
        A sentence each.
    """

    rows: list[dict[str, Any]]
    curves: dict[str, list[Curve]]
    goals: dict[str, list[Judged]]
    notes: tuple[str, ...] = ()


LOW, HIGH = 0.4, 1.6
"""Of the highest prescription: a plan's highest dose lies between them."""
MEDIAN_LOW, MEDIAN_HIGH = 0.6, 1.4
"""The same of the median dose in the target that it is prescribed to."""


def review(doses: Mapping[str, Volume], structures: StructureSet, goals: Iterable[Goal] = ()) -> Reviewed:
    """Measure doses in structures.

    Parameters
    ----------
    doses : mapping of str to Volume
        Gy, by name, on any grids; they are brought onto the structures'.
    structures : StructureSet
    goals : iterable of Goal

    Raises
    ------
    InputError
        If there are no structures, a volume is no dose, or it lies elsewhere.

    Examples
    --------
    >>> from napari_mamba.radiotherapy.structures import Structure
    >>> cord = StructureSet((Structure("cord", np.ones((1, 2, 2), bool)),), np.eye(4))
    >>> review({"plan": Volume(np.full((1, 1, 2, 2), 40.0), np.eye(4))}, cord).rows[0]["mean"]
    40.0
    """
    shape = next((structure.mask.shape for structure in structures), None)
    if shape is None:
        raise InputError("there are no structures: open or draw some")
    goals = list(goals)
    grid = Volume(np.broadcast_to(np.float32(0), (1, *shape)), structures.affine)
    heights = doubted_heights(doses, structures)
    found = Reviewed([], {}, {}, (*structures.notes, *heights.values(), *beyond_doses(doses, structures)))
    medians = []
    for name, dose in doses.items():
        comparison.check_dose(dose)
        values = comparison.on_grid(dose, grid)
        if not values.any() and np.asarray(dose.data).any():
            raise InputError(f"the dose {name} lies beside the structures: choose those of the same patient")
        found.rows.extend({"dose": name, **row} for row in histogram.table(values, structures))
        found.curves[name] = histogram.curves(values, structures)
        found.goals[name] = judged(goals, values, structures)
        medians += [] if name in heights else doubted_median(name, values, structures)
    return replace(found, notes=(*found.notes, *medians))


def beyond_doses(doses: Mapping[str, Volume], structures: StructureSet) -> list[str]:
    """A sentence for each dose whose grid ends within structures other than the patient's outline.

    Examples
    --------
    >>> from napari_mamba.radiotherapy.structures import Structure
    >>> cord = StructureSet((Structure("cord", np.ones((9, 2, 2), bool)),), np.eye(4))
    >>> beyond_doses({"plan": Volume(np.ones((1, 4, 2, 2)), np.eye(4))}, cord)
    ['plan ends within cord: what lies beyond its grid counts as 0 Gy']
    """
    ends = {one.name: _ends(one.mask) for one in structures if not (one.empty or is_outline(one))}
    told = []
    for name, dose in doses.items():
        back = np.linalg.inv(dose.affine) @ structures.affine
        last = np.array(dose.shape) - 1
        left = []
        for structure, voxels in ends.items():
            places = (voxels @ back.T)[:, :3]
            if (places < -1).any() or (places > last + 1).any():
                left.append(structure)
        if left:
            told.append(f"{name} ends within {', '.join(left)}: what lies beyond its grid counts as 0 Gy")
    return told


def _ends(mask: np.ndarray) -> np.ndarray:
    """The first and last voxel of each line of a mask, homogeneous (N, 4): its farthest ones are among them."""
    lines = np.argwhere(mask.any(2))
    kept = mask[lines[:, 0], lines[:, 1]]
    first, last = kept.argmax(1), mask.shape[2] - 1 - kept[:, ::-1].argmax(1)
    return np.concatenate([np.column_stack([lines, end, np.ones(len(lines))]) for end in (first, last)])


def doubted_heights(doses: Mapping[str, Volume], structures: StructureSet) -> dict[str, str]:
    """Each dose whose maximum does not fit the highest prescription of the targets, another unit say; in a sentence.

    Examples
    --------
    >>> from napari_mamba.radiotherapy.structures import Structure
    >>> target = StructureSet((Structure("PTV70", np.ones((1, 2, 2), bool)),), np.eye(4))
    >>> doubted_heights({"plan": Volume(np.full((1, 1, 2, 2), 2.0), np.eye(4))}, target)["plan"]
    'plan reaches 2 Gy where 70 Gy are prescribed: check its unit, and that it is of the whole plan'
    """
    highest = max((dose for _, dose in _prescribed(structures)), default=None)
    if highest is None:
        return {}
    reached = {name: float(np.max(dose.data)) for name, dose in doses.items()}
    return {
        name: f"{name} reaches {most:.3g} Gy where {highest:g} Gy are prescribed: check its unit, and that it is of "
        "the whole plan"
        for name, most in reached.items()
        if not LOW * highest <= most <= HIGH * highest
    }


def doubted_median(name: str, values: np.ndarray, structures: StructureSet) -> list[str]:
    """A sentence where a dose's median in the highest target does not fit its prescription: in percent, say.

    `values` (Z, Y, X) are the dose in Gy on the structures' grid.
    """
    drawn = [(one, dose) for one, dose in _prescribed(structures) if not one.empty]
    if not drawn:
        return []
    target, prescribed = max(drawn, key=lambda pair: pair[1])
    median = float(np.median(values[target.mask]))
    if MEDIAN_LOW * prescribed <= median <= MEDIAN_HIGH * prescribed:
        return []
    return [
        f"half of {target.name} gets {median:.3g} Gy of {name} or more, where {prescribed:g} Gy are prescribed: check "
        "the dose's unit, and that it is of this plan"
    ]


def _prescribed(structures: StructureSet) -> list[tuple[Structure, float]]:
    """The targets whose prescription is known, with it in Gy."""
    known = [(one, one.prescription or prescription_of(one.name)) for one in structures.targets]
    return [(one, dose) for one, dose in known if dose]
