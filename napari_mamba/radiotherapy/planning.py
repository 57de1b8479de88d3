"""From a planning CT and named structures to the channels that a dose network takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.comparison import at_whole_voxels, on_grid
from napari_mamba.radiotherapy.inputs import Inputs, Organ
from napari_mamba.radiotherapy.structures import (
    OUTSIDE,
    Structure,
    StructureSet,
    is_outline,
    plain,
    prescription_of,
    prescriptions,
)
from napari_mamba.volume import Volume

TISSUE = -280.0
"""HU above which a voxel belongs to the patient, once holes are filled."""

GRID: dict[str, tuple[float, ...]] = {"sides": (2.7, 5.5), "slices": (1.5, 3.3), "usual": (2.5, 3.9, 3.9)}
"""Voxel sizes of the grid that a network sees, mm: see `network_grid`."""

_MOST_PRESCRIPTIONS = 32


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan as channels.

    Attributes
    ----------
    volume : Volume
        (C, Z, Y, X) float32 on the CT's own grid: HU in the patient and -1000 outside, a mask of each organ, the
        prescription in the targets in units, a mask of where there can be dose. `Inputs.channels` are their names.
    notes : tuple of str
        What a planner should be told, a sentence each.
    prescribed : dict of str to float
        Gy by target, as they were taken.
    """

    volume: Volume
    notes: tuple[str, ...] = field(default=())
    prescribed: Mapping[str, float] = field(default_factory=dict)


def planned(
    ct: Volume, structures: StructureSet, inputs: Inputs, prescribed: Mapping[str, float] | None = None
) -> Plan:
    """A planning CT and its structures as the channels that a bundle takes; several structures may overlap.

    Parameters
    ----------
    ct : Volume
        HU, of any orientation.
    structures : StructureSet
        On the CT's grid.
    inputs : Inputs
        Of the bundle (`Bundle.planning`).
    prescribed : mapping of str to float, optional
        Gy by target, where their names do not tell.

    Raises
    ------
    InputError
        If no structure is a target, a prescription is absent or not positive, an organ that is required or too many
        of the others are absent, or a target is empty.

    Examples
    --------
    >>> plan = planned(ct, structures, bundle.planning, {"PTV": 70.0})  # doctest: +SKIP
    >>> dose = run_to_end(plan.volume, bundle).image  # doctest: +SKIP
    """
    structures, undrawn = _drawn_targets(_with_prescriptions(structures, prescribed or {}))
    structures, left_out = _planning_targets(structures, prescribed or {})
    doses = prescriptions(structures)
    known = [_found(organ, structures, inputs) for organ in inputs.organs]
    _check_organs(known, inputs)
    patient = outline(ct, structures)
    channels = np.zeros((len(inputs.channels), *ct.shape), np.float32)
    channels[0] = np.where(patient, ct.data[0], -1000)  # no couch, no mask: as in the training data
    for channel, one in zip(channels[1:], known, strict=False):
        if one is not None:
            channel[one.mask] = 1
    for name, dose in sorted(doses.items(), key=lambda item: item[1]):  # the higher one where two overlap
        channels[-2][structures[name].mask] = dose / inputs.unit
    channels[-1] = possible_dose(patient, ct, structures, inputs.reach)
    notes = _notes(structures, known, doses, inputs)
    if undrawn:
        notes += (f"{', '.join(undrawn)}: nobody drew it, and no dose is planned to it",)
    if left_out:
        notes += (f"{', '.join(left_out)}: no prescription, and the dose is planned to the PTV alone",)
    return Plan(ct.with_data(channels, inputs.channels), notes, doses)


def network_channels(plan: Volume, grid: Volume) -> np.ndarray:
    """What `napari_mamba.models.dose` takes (C + 2, Z, Y, X), float32, from a plan's channels (C, …) on another grid.

    HU become densities; the last two channels are the distance of slices and the voxel side in a slice, in cm, where
    there can be dose.

    Raises
    ------
    InputError
        If the prescription has more values than a plan has targets: then it is another image.
    """
    density, *masks = np.asarray(plan.data, np.float32)
    prescription, possible = masks[-2:]
    levels = np.unique(prescription[prescription > 0])
    if len(levels) > _MOST_PRESCRIPTIONS:
        raise InputError("the prescription has a value of its own nearly everywhere: give a plan's, one Gy a target")
    channels = np.zeros((plan.channels + 2, *grid.shape), np.float32)
    channels[0] = on_grid(plan.with_data((density[np.newaxis] + 1000) / 1000), grid).clip(0, 2)
    for channel, mask in zip(channels[1:], masks[:-2], strict=False):
        channel[...] = _mask(mask > 0, plan, grid)
    for level in levels:
        np.copyto(channels[-4], level, where=_mask(prescription >= level, plan, grid))
    channels[-3] = _mask(possible > 0, plan, grid)
    channels[-2], channels[-1] = (channels[-3] * np.float32(side / 10) for side in (grid.spacing[0], grid.spacing[2]))
    return channels


def network_grid(ct: Volume, sides: Sequence[float], slices: Sequence[float], usual: Sequence[float]) -> Volume:
    """The grid that a network sees: axes along the patient's (RAS), voxels of sides that it knows.

    Parameters
    ----------
    ct : Volume
        Its shape and affine are looked at.
    sides : (float, float)
        Range of voxel sides within a slice that the network was trained on, mm; others become the `usual`.
    slices : (float, float)
        The same of the distance of slices.
    usual : (float, float, float)
        mm along (z, y, x).
    """
    directions = ct.affine[:3, :3] / ct.spacing
    order = max(permutations(range(3)), key=lambda p: sum(abs(directions[2 - n, p[n]]) for n in range(3)))
    axes = directions[:, list(order)]
    flips = np.sign(axes[[2, 1, 0], [0, 1, 2]])  # z up, y to the front, x to the right
    have = ct.spacing[list(order)]
    lengths = np.array(ct.shape)[list(order)] * have
    known = sides[0] <= have[1:].min() and have[1:].max() <= sides[1] and bool(np.isclose(have[1], have[2], rtol=1e-3))
    wanted = np.array([have[0] if slices[0] <= have[0] <= slices[1] else usual[0], *(have[1:] if known else usual[1:])])
    size = np.maximum(np.round(lengths / wanted), 1).astype(int)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * flips * wanted
    middle = ct.affine @ [*((np.array(ct.shape) - 1) / 2), 1]
    matrix[:3, 3] = middle[:3] - matrix[:3, :3] @ ((size - 1) / 2)
    return Volume(np.broadcast_to(np.float32(0), (1, *size)), matrix)


def outline(ct: Volume, structures: StructureSet) -> np.ndarray:
    """The patient (Z, Y, X), as drawn, or else as found in the CT."""
    drawn = next(filter(is_outline, structures), None)
    if drawn is not None and not drawn.empty:
        return drawn.mask
    found = patient_in(np.asarray(ct.data[0]))
    if not found.any():
        raise InputError("no patient is to be seen in the CT: draw a structure called Body")
    return found


def possible_dose(patient: np.ndarray, ct: Volume, structures: StructureSet, reach: float) -> np.ndarray:
    """Where there can be dose (Z, Y, X): in the patient, `reach` mm beyond the targets along the body."""
    targets = np.any([target.mask for target in structures.targets], axis=0)
    up = int(np.argmax(np.abs(ct.affine[2, :3]) / ct.spacing))  # the axis that runs along the body
    places = np.flatnonzero(targets.any(axis=tuple(axis for axis in range(3) if axis != up)))
    steps = int(np.ceil(reach / ct.spacing[up]))
    near = np.zeros(ct.shape, bool)
    near[(slice(None),) * up + (slice(max(int(places[0]) - steps, 0), int(places[-1]) + steps + 1),)] = True
    return (patient & near) | targets


def patient_in(values: np.ndarray) -> np.ndarray:
    """The patient (Z, Y, X) in HU, holes filled slice by slice; nothing where there is no tissue.

    It is the largest piece of tissue, and what lies above or below it, apart from it where slices are spoilt; a couch
    lies beside it.
    """
    from scipy import ndimage

    tissue = ndimage.binary_opening(values > TISSUE, iterations=1)
    pieces, count = ndimage.label(tissue)
    if not count:
        return tissue
    sizes = np.bincount(pieces.ravel())
    silhouette = (pieces == 1 + int(np.argmax(sizes[1:]))).any(0)
    within = sum(np.bincount(plane[silhouette], minlength=count + 1) for plane in pieces)
    kept = 2 * within > sizes
    kept[0] = False
    return np.stack([ndimage.binary_fill_holes(plane) for plane in kept[pieces]])


def _check_organs(known: list[Structure | None], inputs: Inputs) -> None:
    missing = [o.name for o, one in zip(inputs.organs, known, strict=True) if o.required and (one is None or one.empty)]
    if missing:
        raise InputError(f"nobody drew the {missing[0]}, which this bundle needs: contour it first")
    present = [one for one in known if one is not None and not one.empty]
    if len(present) < inputs.at_least:
        raise InputError(
            f"of the organs of the {inputs.region}, the structures have {len(present)}: this bundle is for a plan of "
            f"the {inputs.region}, with {', '.join(organ.name for organ in inputs.organs)}"
        )


def _found(organ: Organ, structures: StructureSet, inputs: Inputs) -> Structure | None:
    """The structure that is an organ: one that is drawn before one that a template left empty, then the first."""
    fitting = [one for one in structures if inputs.organ_of(one) == organ]
    return next((one for one in fitting if not one.empty), next(iter(fitting), None))


def _with_prescriptions(structures: StructureSet, prescribed: Mapping[str, float]) -> StructureSet:
    """The set with Gy given by name; a structure that gets one is a target."""
    by_name = {plain(name): dose for name, dose in prescribed.items()}
    for name in prescribed:
        structures[name]  # refuses one that is not there
    return replace(
        structures,
        structures=tuple(
            replace(s, prescription=by_name[plain(s.name)], kind="PTV") if plain(s.name) in by_name else s
            for s in structures
        ),
    )


def _drawn_targets(structures: StructureSet) -> tuple[StructureSet, tuple[str, ...]]:
    """The set without targets that nobody drew, as templates leave them, and their names.

    Raises `InputError` where one lies outside the image, or none is drawn.
    """
    empty = tuple(one.name for one in structures.targets if one.empty)
    lost = [name for name in empty if f"{name} {OUTSIDE}" in structures.notes]
    if lost or (empty and len(empty) == len(structures.targets)):
        raise InputError(f"the target {[*lost, *empty][0]!r} {OUTSIDE}: choose the structures of this CT")
    return replace(structures, structures=tuple(one for one in structures if one.name not in empty)), empty


def _planning_targets(
    structures: StructureSet, prescribed: Mapping[str, float]
) -> tuple[StructureSet, tuple[str, ...]]:
    """The set without the tumour (GTV) and the clinical targets that its PTVs hold, which nobody prescribes to.

    Also the names of those that were left out; none where there is no PTV.
    """
    if not any(one.target and _is_planning_target(one) for one in structures):
        return structures, ()
    given = set(map(plain, prescribed))
    kept = [
        one
        for one in structures
        if not one.target
        or _is_planning_target(one)
        or plain(one.name) in given
        or (one.prescription or prescription_of(one.name))
    ]
    names = tuple(one.name for one in structures if one not in kept)
    return replace(structures, structures=tuple(kept)), names


def _is_planning_target(structure: Structure) -> bool:
    return structure.kind.upper() == "PTV" or (not structure.kind and "ptv" in structure.name.lower())


def _mask(mask: np.ndarray, ct: Volume, grid: Volume) -> np.ndarray:
    turned = at_whole_voxels(mask, ct, grid)
    return on_grid(ct.with_data(mask[np.newaxis].astype(np.float32)), grid) >= 0.5 if turned is None else turned


def _notes(
    structures: StructureSet, known: list[Structure | None], doses: Mapping[str, float], inputs: Inputs
) -> tuple[str, ...]:
    absent = [o.name for o, one in zip(inputs.organs, known, strict=True) if one is None or one.empty]
    used = {one.name for one in known if one is not None} | set(doses)
    other = [s.name for s in structures if s.name not in used and not is_outline(s)]
    notes = list(structures.notes)
    if absent:
        notes.append(f"nobody drew the {', the '.join(absent)}: the dose spares nothing there on purpose")
    if other:
        notes.append(f"the network does not know {', '.join(other)}: they change nothing")
    if (highest := max(doses.values())) > 1.05 * inputs.unit:
        notes.append(f"{highest:g} Gy are more than any plan that the network learnt from ({inputs.unit:g} Gy)")
    return tuple(notes)
