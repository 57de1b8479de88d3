"""What a bundle does to its label map after the network, and what makes it doubt the answer.

A step takes labels on the input's grid, with what earlier steps have found out about them, and returns them, changed or
not, with sentences for the user. Nothing is done that the bundle does not name under "postprocessing".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_mamba.editing.parts import MARGIN, strays
from napari_mamba.editing.structures import Structures
from napari_mamba.engine.answers.lesions import warn_thick, warn_unlike
from napari_mamba.engine.answers.plausibility import warn_mirrored, warn_pieces, warn_position, warn_sides
from napari_mamba.errors import BundleError

Postprocessed = tuple[Structures, list[str]]
Doubt = Callable[[], list[str]]


def keep_largest(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    indices: Sequence[int] = (),
    as_one_structure: bool = False,
) -> Postprocessed:
    """Keep the largest connected part of each structure; voxels of the others take the label nearest to them.

    Parameters
    ----------
    seen : Structures
        Of labels (Z, Y, X).
    spacing : sequence of float
        (z, y, x) in mm.
    names : mapping
        Of the labels.
    indices : sequence of int
        Labels to look at; all but the background if empty.
    as_one_structure : bool
        Take them as one structure, whose smaller parts become background.
    """
    chosen = [int(i) for i in indices] or [i for i in names if i]
    if as_one_structure:
        pieces, sizes = seen.pieces(chosen)
        gone = (pieces > 0) & (pieces != sizes.argmax())
        return (seen.without(gone) if gone.any() else seen), []
    parts, sizes, owners = seen.parts
    stray = strays(sizes, owners, chosen)[parts]
    return (seen.relabelled(stray, spacing) if stray.any() else seen), []


def warn_volume(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    ml: Sequence[float],
    what: str,
    indices: Sequence[int] = (),
) -> Postprocessed:
    """A doubt where the labels `indices` (all but the background if empty) add up to less or more than `ml` has."""
    chosen = sorted({int(i) for i in indices} or {i for i in names if i})
    return seen, doubt_volume(int(seen.counts(max(chosen, default=0) + 1)[chosen].sum()), spacing, ml, what)


def doubt_volume(voxels: int, spacing: Sequence[float], ml: Sequence[float], what: str) -> list[str]:
    """What `warn_volume` says of so many voxels."""
    volume = voxels * float(np.prod(spacing)) / 1000
    if ml[0] <= volume <= ml[1]:
        return []
    return [
        f"What was found adds up to {volume:.0f} ml, and {what} has {ml[0]:g} to {ml[1]:g} ml: the image may show "
        f"something else or a part of it, or its voxel size may be wrong. Do not trust this result unseen."
    ]


def warn_missing(
    seen: Structures, spacing: Sequence[float], names: Mapping[int, str], allowed: int = 0, smallest: float = 0.0
) -> Postprocessed:
    """A doubt that names the structures of less than `smallest` ml, where more than `allowed` are."""
    counts = seen.counts(max(names) + 1)
    return seen, doubt_missing(dict(enumerate(counts.tolist())), spacing, names, allowed, smallest)


def doubt_missing(
    voxels: Mapping[int, int],
    spacing: Sequence[float],
    names: Mapping[int, str],
    allowed: int = 0,
    smallest: float = 0.0,
) -> list[str]:
    """What `warn_missing` says of the voxels of each label."""
    counts = {index: voxels.get(index, 0) * float(np.prod(spacing)) / 1000 for index in names}
    missing = [name for index, name in names.items() if index and counts[index] <= smallest]
    if len(missing) <= allowed:
        return []
    shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    return [
        f"Of {len(names) - (0 in names)} structures {len(missing)} were not found ({shown}): check that the whole "
        "organ is in view, and that its orientation and voxel size are right."
    ]


STEPS: Mapping[str, Callable[..., Postprocessed]] = {
    "keep_largest": keep_largest,
    "warn_volume": warn_volume,
    "warn_missing": warn_missing,
    "warn_sides": warn_sides,
    "warn_pieces": warn_pieces,
    "warn_position": warn_position,
    "warn_mirrored": warn_mirrored,
    "warn_thick": warn_thick,
    "warn_unlike": warn_unlike,
}
_ASKS_FOR: Mapping[str, tuple[str, ...]] = {
    "warn_position": ("affine",),
    "warn_mirrored": ("agreement",),
    "warn_thick": ("affine",),
    "warn_unlike": ("image", "affine"),
}
"""What a step takes beside the labels, their spacing and names."""
_CHANGING = frozenset({"keep_largest"})
"""Steps after which labels may be others; the rest only doubts."""


def postprocess(
    labels: np.ndarray,
    spacing: Sequence[float],
    names: Mapping[int, str],
    steps: Sequence[Mapping[str, Any]],
    *,
    affine: np.ndarray | None = None,
    agreement: float | None = None,
    image: np.ndarray | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Carry out a bundle's `postprocessing` on labels (Z, Y, X); returns them, and sentences of doubt.

    `spacing` (z, y, x) is in mm; `names` are the bundle's classes by label; `affine` (4, 4) is the labels', without
    which positions are not looked at; `agreement` is the Dice of the passes with their mean, where there are several;
    `image` (Z, Y, X) is what was segmented, without which no tissue is compared with the rest of it.
    Raises `BundleError` for an unknown step.

    Examples
    --------
    >>> labels = np.array([[[1, 1, 0, 1]]])
    >>> postprocess(labels, (1, 1, 1), {1: "a"}, [{"step": "keep_largest", "as_one_structure": True}])[0]
    array([[[1, 1, 0, 0]]])
    """
    labels, doubts = mended(labels, spacing, names, steps, affine=affine, agreement=agreement, image=image)
    return labels, [one for doubt in doubts for one in doubt()]


def mended(
    labels: np.ndarray,
    spacing: Sequence[float],
    names: Mapping[int, str],
    steps: Sequence[Mapping[str, Any]],
    *,
    affine: np.ndarray | None = None,
    agreement: float | None = None,
    image: np.ndarray | None = None,
    device: str = "",
) -> tuple[np.ndarray, list[Doubt]]:
    """As `postprocess`: labels, and what looks for doubts, step by step, in other threads if one likes.

    With a `device`, a GPU as PyTorch names it, connected parts are looked for there: the same ones.
    """
    if unknown := [step.get("step") for step in steps if step.get("step") not in STEPS]:
        raise BundleError(f"the postprocessing step {unknown[0]!r} is not known; known are {', '.join(STEPS)}")
    background = any(map(_asks_for_background, steps))
    box = (slice(None),) * labels.ndim if background else _around_all(labels)
    inside = seen = Structures(np.ascontiguousarray(labels[box]), background, device)
    if affine is not None:
        affine = affine @ _shift(box)
    given = {"affine": affine, "agreement": agreement, "image": None if image is None else image[box]}

    def carried_out(step: Mapping[str, Any], seen: Structures) -> Postprocessed:
        options = dict(step)
        name = str(options.pop("step"))
        if name == "warn_position" and affine is None:
            return seen, []
        options |= {one: given[one] for one in _ASKS_FOR.get(name, ())}
        try:
            return STEPS[name](seen, spacing, names, **options)
        except (TypeError, ValueError, LookupError) as error:
            raise BundleError(f"the postprocessing step {name!r} has wrong options ({error})") from error

    last = max((i + 1 for i, step in enumerate(steps) if step["step"] in _CHANGING), default=0)
    warnings: list[str] = []
    for step in steps[:last]:
        seen, said = carried_out(step, seen)
        warnings += said
    if seen is not inside:
        labels = labels.copy()
        labels[box] = seen.labels
    return labels, [lambda: warnings, *(lambda step=step: carried_out(step, seen)[1] for step in steps[last:])]


def _around_all(labels: np.ndarray) -> tuple[slice, ...]:
    """The box of what is labelled, at which alone the steps have to look where none asks for the background.

    With the margin in which `relabelled` looks for neighbours, so that its answers are the same.
    """
    found: list[slice] = []
    for axis in range(labels.ndim):  # each axis within the box of those before
        left = labels[tuple(found)]
        there = np.flatnonzero(left.any(axis=tuple(i for i in range(left.ndim) if i != axis)))
        found.append(slice(max(there[0] - MARGIN, 0), there[-1] + MARGIN + 1) if len(there) else slice(None))
    return tuple(found)


def _asks_for_background(step: Mapping[str, Any]) -> bool:
    lists = [step.get("indices"), step.get("pairs"), *(step.get("rules") or ())]
    return any(isinstance(one, Sequence) and 0 in one for one in lists)


def _shift(box: Sequence[slice]) -> np.ndarray:
    """From the (z, y, x) of a box to those of the whole, (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, 3] = [one.start or 0 for one in box]
    return matrix


def count_warnings(
    voxels: Mapping[int, int],
    spacing: Sequence[float],
    names: Mapping[int, str],
    steps: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Sentences of doubt of those steps that look at the number of voxels of each label alone."""
    doubts: list[str] = []
    for step in steps:
        options = dict(step)
        name = options.pop("step", None)
        if name == "warn_missing":
            doubts += doubt_missing(voxels, spacing, names, **options)
        elif name == "warn_volume":
            chosen = [int(i) for i in options.pop("indices", ())] or [i for i in names if i]
            doubts += doubt_volume(sum(voxels.get(i, 0) for i in chosen), spacing, **options)
    return doubts
