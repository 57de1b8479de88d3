"""From a planning CT and named structures to what a dose network takes, and from its answer to a dose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np
from scipy import ndimage

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.comparison import on_grid
from napari_mamba.radiotherapy.structures import Structure, StructureSet, plain, prescriptions
from napari_mamba.volume import Volume

BODY = ("body", "external", "patient", "skin", "outer contour", "possible dose")
"""Names by which the patient's outline goes."""

TISSUE = -280.0
"""HU above which a voxel belongs to the patient, once holes are filled."""

Predict = Callable[[np.ndarray], np.ndarray]
"""From channels (C, Z, Y, X) float32 to the dose (Z, Y, X) in units."""


@dataclass(frozen=True)
class Organ:
    """An organ that a network takes, the other names it goes by, and its SNOMED CT code."""

    name: str
    aliases: tuple[str, ...] = ()
    code: str = ""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(plain(name) for name in (self.name, *self.aliases))


@dataclass(frozen=True)
class Inputs:
    """What a dose network takes.

    Attributes
    ----------
    region : str
        Of the body, for messages.
    organs : tuple of Organ
        In the order of the channels. An absent one is an empty channel.
    unit : float
        Gy that are 1 to the network.
    sides : (float, float)
        Range of voxel sides within a slice that it was trained on, mm; other images are resampled to `usual`.
    slices : (float, float)
        The same of the distance of slices.
    usual : (float, float, float)
        mm along (z, y, x).
    reach : float
        Beyond the targets along the body, mm: there is no dose further away.
    at_least : int
        Organs that must be there: with fewer it is another part of the body.
    """

    region: str
    organs: tuple[Organ, ...]
    unit: float
    sides: tuple[float, float] = (2.7, 5.5)
    slices: tuple[float, float] = (1.5, 3.3)
    usual: tuple[float, float, float] = (2.5, 3.9, 3.9)
    reach: float = 50.0
    at_least: int = 2


HEAD_NECK = Inputs(
    "head and neck",
    (
        Organ("brainstem", ("brain stem", "brain_stem", "hirnstamm"), "15926001"),
        Organ("spinal cord", ("cord", "spinalcord", "myelon", "spinal canal"), "2748008"),
        Organ("right parotid", ("parotid_r", "parotid right", "r parotid", "glnd_parotid_r"), "45289007"),
        Organ("left parotid", ("parotid_l", "parotid left", "l parotid", "glnd_parotid_l"), "45289007"),
        Organ("oesophagus", ("esophagus", "ösophagus"), "32849002"),
        Organ("larynx", ("kehlkopf", "glottis"), "4596009"),
        Organ("mandible", ("bone_mandible", "unterkiefer", "jaw"), "91609006"),
    ),
    unit=70.0,
)
"""Of `dose-headneck-ct`; names after AAPM's task group 263 among the aliases."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network's input, and the way back.

    Attributes
    ----------
    channels : (C, Z, Y, X) float32 array
        As `napari_mamba.models.dose` lists them.
    grid : Volume
        Where they lie.
    body : (Z, Y, X) bool array
        Where there can be dose, on the CT's own grid.
    notes : tuple of str
        What a planner should be told, a sentence each.
    """

    channels: np.ndarray
    grid: Volume
    body: np.ndarray
    notes: tuple[str, ...] = field(default=())


def prepared(
    ct: Volume, structures: StructureSet, inputs: Inputs, prescribed: Mapping[str, float] | None = None
) -> Prepared:
    """What a network takes of a planning CT and its structures.

    Parameters
    ----------
    ct : Volume
        HU, of any orientation.
    structures : StructureSet
        On the CT's grid.
    inputs : Inputs
    prescribed : mapping of str to float, optional
        Gy by target, where their names do not tell.

    Raises
    ------
    InputError
        If no structure is a target, a prescription is absent or not positive, too few organs are known to the network,
        or a target is empty.
    """
    structures = _with_prescriptions(structures, prescribed or {})
    doses = prescriptions(structures)
    if empty := [name for name in doses if structures[name].empty]:
        raise InputError(f"the target {empty[0]!r} has nothing inside the image: choose the structures of this CT")
    known = [_found(organ, structures) for organ in inputs.organs]
    present = [one for one in known if one is not None and not one.empty]
    if len(present) < inputs.at_least:
        raise InputError(
            f"of the organs of the {inputs.region}, the structures have {len(present)}: this bundle is for a plan of "
            f"the {inputs.region}, with {', '.join(organ.name for organ in inputs.organs)}"
        )
    patient = outline(ct, structures)
    body = possible_dose(patient, ct, structures, inputs.reach)
    grid = _grid(ct, inputs)
    hu = np.where(patient, np.asarray(ct.data[0], np.float32), -1000)  # no couch, no mask: as in the training data
    density = on_grid(ct.with_data((hu[np.newaxis] + 1000) / 1000), grid).clip(0, 2)
    target = np.zeros(grid.shape, np.float32)
    for name, dose in sorted(doses.items(), key=lambda item: item[1]):  # the higher one where two overlap
        target[_mask(structures[name].mask, ct, grid)] = dose / inputs.unit
    possible = _mask(body, ct, grid).astype(np.float32)
    organs = [
        np.zeros(grid.shape, np.float32) if one is None else _mask(one.mask, ct, grid).astype(np.float32)
        for one in known
    ]
    sides = [possible * np.float32(side / 10) for side in (grid.spacing[0], grid.spacing[2])]
    channels = np.stack([density, *organs, target, possible, *sides])
    return Prepared(channels.astype(np.float32), grid, body, _notes(structures, known, doses, inputs))


def predicted(ready: Prepared, ct: Volume, inputs: Inputs, predict: Predict) -> Volume:
    """The dose in Gy on the CT's grid: never negative, zero where there can be none."""
    answer = np.asarray(predict(ready.channels), np.float32) * inputs.unit
    back = on_grid(ready.grid.with_data(answer[np.newaxis]), ct)
    return ct.with_data((back.clip(min=0) * ready.body)[np.newaxis], ("dose in Gy",))


def outline(ct: Volume, structures: StructureSet) -> np.ndarray:
    """The patient (Z, Y, X), as drawn, or else as found in the CT."""
    drawn = next((s for s in structures if plain(s.name) in map(plain, BODY) or s.kind.upper() == "EXTERNAL"), None)
    return _body(np.asarray(ct.data[0])) if drawn is None or drawn.empty else drawn.mask


def possible_dose(patient: np.ndarray, ct: Volume, structures: StructureSet, reach: float) -> np.ndarray:
    """Where there can be dose (Z, Y, X): in the patient, `reach` mm beyond the targets along the body."""
    targets = np.any([target.mask for target in structures.targets], axis=0)
    up = int(np.argmax(np.abs(ct.affine[2, :3]) / ct.spacing))  # the axis that runs along the body
    places = np.flatnonzero(targets.any(axis=tuple(axis for axis in range(3) if axis != up)))
    steps = int(np.ceil(reach / ct.spacing[up]))
    near = np.zeros(ct.shape, bool)
    near[(slice(None),) * up + (slice(max(int(places[0]) - steps, 0), int(places[-1]) + steps + 1),)] = True
    return (patient & near) | targets


def _body(values: np.ndarray) -> np.ndarray:
    """The largest piece of tissue, holes filled slice by slice."""
    tissue = ndimage.binary_opening(values > TISSUE, iterations=1)
    pieces, count = ndimage.label(tissue)
    if not count:
        raise InputError("no patient is to be seen in the CT: draw a structure called Body")
    largest = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


def _found(organ: Organ, structures: StructureSet) -> Structure | None:
    return next((s for s in structures if plain(s.name) in organ.names), None)


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


def _grid(ct: Volume, inputs: Inputs) -> Volume:
    """The grid that a network sees: axes along the patient's (RAS), voxels of sides that it knows."""
    directions = ct.affine[:3, :3] / ct.spacing
    order = max(permutations(range(3)), key=lambda p: sum(abs(directions[2 - n, p[n]]) for n in range(3)))
    axes = directions[:, list(order)]
    flips = np.sign(axes[[2, 1, 0], [0, 1, 2]])  # z up, y to the front, x to the right
    have = ct.spacing[list(order)]
    lengths = np.array(ct.shape)[list(order)] * have
    within = have[1:].max()
    known = (
        inputs.sides[0] <= have[1:].min()
        and within <= inputs.sides[1]
        and bool(np.isclose(have[1], have[2], rtol=1e-3))
    )
    wanted = np.array(
        [
            have[0] if inputs.slices[0] <= have[0] <= inputs.slices[1] else inputs.usual[0],
            *(have[1:] if known else inputs.usual[1:]),
        ]
    )
    size = np.maximum(np.round(lengths / wanted), 1).astype(int)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * flips * wanted
    middle = ct.affine @ [*((np.array(ct.shape) - 1) / 2), 1]
    matrix[:3, 3] = middle[:3] - matrix[:3, :3] @ ((size - 1) / 2)
    return Volume(np.zeros((1, *size), np.float32), matrix)


def _mask(mask: np.ndarray, ct: Volume, grid: Volume) -> np.ndarray:
    return on_grid(ct.with_data(mask[np.newaxis].astype(np.float32)), grid) >= 0.5


def _notes(
    structures: StructureSet, known: list[Structure | None], doses: Mapping[str, float], inputs: Inputs
) -> tuple[str, ...]:
    absent = [o.name for o, one in zip(inputs.organs, known, strict=True) if one is None or one.empty]
    used = {one.name for one in known if one is not None} | set(doses)
    other = [s.name for s in structures if s.name not in used and plain(s.name) not in map(plain, BODY)]
    notes = list(structures.notes)
    if absent:
        notes.append(f"nobody drew the {', the '.join(absent)}: the dose spares nothing there on purpose")
    if other:
        notes.append(f"the network does not know {', '.join(other)}: they change nothing")
    if (highest := max(doses.values())) > 1.05 * inputs.unit:
        notes.append(f"{highest:g} Gy are more than any plan that the network learnt from ({inputs.unit:g} Gy)")
    return tuple(notes)
