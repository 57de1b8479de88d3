"""Postprocessing that changes nothing and doubts: what an answer of its kind looks like in people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_mamba.editing.structures import Structures
from napari_mamba.errors import BundleError

_UNSEEN = "Do not trust this result unseen."
_TURNED = "Check the image's orientation and what it shows."
_ONE_SIDED = (
    "Check for a tumour or another lesion on one side, for a part that is cut off, and the image's orientation."
)
DIRECTIONS: Mapping[str, tuple[int, int, str]] = {
    "R": (0, 1, "to the right of"),
    "L": (0, -1, "to the left of"),
    "A": (1, 1, "in front of"),
    "P": (1, -1, "behind"),
    "S": (2, 1, "above"),
    "I": (2, -1, "below"),
}
"""World axis, sign, and words."""
_SHOWN = 3


def warn_sides(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    pairs: Sequence[int],
    difference: float | Sequence[float],
    smallest: float = 0.0,
) -> tuple[Structures, list[str]]:
    """A doubt where left and right are of very different volume.

    Parameters
    ----------
    seen : Structures
        Of labels (Z, Y, X).
    spacing : sequence of float
        (z, y, x) in mm.
    names : mapping
        Of the labels.
    pairs : sequence of int
        Labels in pairs: left, right, left, right.
    difference : float or sequence of float
        Largest |left - right| / (left + right) that people have: of all pairs, or one for each of them.
    smallest : float
        Pairs of less ml together are not compared.
    """
    if len(pairs) % 2:
        raise BundleError(f"the postprocessing's sides are pairs of labels, not {list(pairs)}")
    limits = [float(difference)] * (len(pairs) // 2) if isinstance(difference, (int, float)) else list(difference)
    if len(limits) != len(pairs) // 2:
        raise BundleError(f"the postprocessing has {len(limits)} differences for {len(pairs) // 2} pairs of sides")
    ml = _volumes(seen, spacing, names)
    found = []
    for left, right, limit in zip(pairs[::2], pairs[1::2], limits, strict=True):
        both = ml[left] + ml[right]
        if both > max(smallest, 0) and abs(ml[left] - ml[right]) / both > limit:
            found.append(f"{names[left]} {ml[left]:.2g} ml and {names[right]} {ml[right]:.2g} ml")
    return seen, _sentence("Left and right differ more than in people", found, _ONE_SIDED)


def warn_pieces(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    most: int,
    indices: Sequence[int] = (),
    smallest: float = 0.0,
) -> tuple[Structures, list[str]]:
    """A doubt where the labels `indices` (all but the background if empty) together lie in more than `most` pieces.

    Pieces of less than `smallest` ml do not count.
    """
    chosen = [int(i) for i in indices] or [i for i in names if i]
    sizes = seen.pieces(chosen)[1][1:] * float(np.prod(spacing)) / 1000
    large = int(np.count_nonzero(sizes > smallest))
    if large <= most:
        return seen, []
    what = names[chosen[0]] if len(chosen) == 1 else "What was found"
    said = f"{what[0].upper()}{what[1:]} lies in {large} pieces, where people have {most}"
    return seen, [f"{said}: look for what else was taken for it. {_UNSEEN}"]


def warn_position(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    rules: Sequence[Sequence[Any]],
    affine: np.ndarray,
    smallest: float = 0.0,
) -> tuple[Structures, list[str]]:
    """A doubt where a structure does not lie in front of, above or beside another, as it does in people.

    Parameters
    ----------
    seen : Structures
        Of labels (Z, Y, X).
    spacing, names
        As above.
    rules : sequence of (int, str, int, float)
        A label, a direction (one of R, L, A, P, S, I), another label, and how many mm the first one's middle lies from
        the other's in that direction at least; negative: it may lie so far on the other side.
    affine : ndarray, shape (4, 4)
        Of the labels, from (z, y, x) to RAS mm.
    smallest : float
        Structures of less ml are left away.

    Examples
    --------
    >>> seen = Structures(np.array([[[1, 2]]]))
    >>> warn_position(seen, (1, 1, 1), {1: "head", 2: "tail"}, [[1, "R", 2, 0]], np.eye(4)[[2, 1, 0, 3]])[1][0][:48]
    'Structures do not lie as in people: head is not '
    """
    ml = _volumes(seen, spacing, names)
    wanted = sorted({int(rule[i]) for rule in rules for i in (0, 2)})
    there = [index for index in wanted if ml.get(index, 0) > smallest]
    middles = seen.centres(there) if there else np.zeros((0, 3))
    world = {i: affine[:3, :3] @ m + affine[:3, 3] for i, m in zip(there, middles, strict=True)}
    found = []
    for first, direction, second, least in rules:
        if direction not in DIRECTIONS:
            raise BundleError(f"the postprocessing's direction {direction!r} is not one of {', '.join(DIRECTIONS)}")
        axis, sign, words = DIRECTIONS[direction]
        if first in world and second in world and sign * (world[first] - world[second])[axis] < least:
            found.append(f"{names[first]} is not {words} {names[second]}")
    return seen, _sentence("Structures do not lie as in people", found)


def warn_mirrored(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    dice: float,
    agreement: float | None,
) -> tuple[Structures, list[str]]:
    """A doubt where the passes over mirrored copies, and the members, agree less with their mean than `dice`."""
    if agreement is None or agreement >= dice:
        return seen, []
    return seen, [
        f"The network's answers to the image and to its mirrored copies differ (Dice {agreement:.2f}; images like "
        f"those it was made from have {dice:.2f} or more). {_UNSEEN}"
    ]


def _volumes(seen: Structures, spacing: Sequence[float], names: Mapping[int, str]) -> dict[int, float]:
    counts = seen.counts(max(names) + 1) * float(np.prod(spacing)) / 1000
    return {index: float(counts[index]) for index in names}


def _sentence(what: str, found: Sequence[str], check: str = _TURNED) -> list[str]:
    if not found:
        return []
    shown = "; ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
    return [f"{what}: {shown}. {check} {_UNSEEN}"]
