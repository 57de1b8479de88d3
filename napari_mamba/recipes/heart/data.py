"""Reading the Sunnybrook folder, and packing it into one small file for a machine that trains.

The folder holds `stacks/PERSON_ED_image.nii.gz` (and `_ES_`, `_label`), one phase of all drawn slices with the cavity's
label, and `cine/PERSON_cine.nii.gz` with `PERSON_label.nii.gz`, all slices and phases, of which two phases were drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_mamba.errors import InputError
from napari_mamba.recipes.heart import task

WIDTH = 176
"""Pixels of a packed slice; the heart lies near the middle of the 256 that were scanned."""
DEPTH = 14
"""Slices of the deepest stack."""
LEVELS = 2
"""Grey values that become one: 7 bits of 8, below the noise, take a fifth less space."""


@dataclass(frozen=True)
class Case:
    """One labelled phase: image (Z, Y, X) uint8, codes (Z, Y, X) uint8 of `task`, pixel side in mm."""

    person: str
    phase: str
    image: np.ndarray
    codes: np.ndarray
    side: float


@dataclass(frozen=True)
class Cine:
    """A whole beat: images (T, Z, Y, X) uint8, codes alike, pixel side in mm."""

    person: str
    images: np.ndarray
    codes: np.ndarray
    side: float


def stacks(data: Path, which: str) -> Iterator[Case]:
    """The labelled stacks of one part of the split, in order of their names."""
    files = sorted((data / "stacks").glob("*_image.nii.gz"))
    if not files:
        raise InputError(f"{data} holds no stacks/*_image.nii.gz: give the folder of the Sunnybrook cardiac data")
    for file in files:
        person, phase, _ = file.name.rsplit("_", 2)
        if task.part(person) != which:
            continue
        label = file.with_name(f"{person}_{phase}_label.nii.gz")
        if not label.exists():
            raise InputError(f"{file.parent} lacks {label.name}: complete the data set")
        image, spacing = _read(file)
        labels, _ = _read(label)
        if image.shape != labels.shape:
            raise InputError(f"{label.name} does not lie on the grid of {file.name}: complete the data set")
        yield Case(person, phase, image[0], cavity_only(labels[0], spacing[1]), spacing[1])


def cines(data: Path, which: str) -> Iterator[Cine]:
    """The cine scans of one part of the split."""
    for file in sorted((data / "cine").glob("*_cine.nii.gz")):
        person = file.name.removesuffix("_cine.nii.gz")
        if task.part(person) == which:
            images, spacing = _read(file)
            labels, _ = _read(file.with_name(f"{person}_label.nii.gz"))
            yield Cine(person, images, partial(labels, spacing[1]), spacing[1])


def cavity_only(labels: np.ndarray, side: float) -> np.ndarray:
    """Codes of slices (Z, Y, X) on which the cavity alone was drawn (1): what is near it may be wall."""
    codes = np.full(labels.shape, task.NOT_CAVITY, np.uint8)
    for z, drawn in enumerate(labels == task.CAVITY):
        if drawn.any():
            codes[z][distance_transform_edt(~drawn) * side > task.REACH] = task.BACKGROUND
        codes[z][drawn] = task.CAVITY
    return codes


def partial(labels: np.ndarray, side: float) -> np.ndarray:
    """Codes of a cine's labels (T, Z, Y, X): exact where the wall was drawn, unknown where nothing was."""
    codes = np.empty(labels.shape, np.uint8)
    for at in np.ndindex(labels.shape[:2]):
        one = labels[at]
        if (one == task.NOT_DRAWN).any():
            codes[at] = np.where(one == task.NOT_DRAWN, task.UNKNOWN, one)
        else:
            codes[at] = one if (one == task.WALL).any() else cavity_only(one[None], side)[0]
    return codes


def pack(data: Path) -> dict[str, np.ndarray]:
    """Everything that training and validation need.

    Returns
    -------
    dict
        For "training" and "validation": `_images` and `_codes` (N, DEPTH, WIDTH, WIDTH) uint8, the middle of each
        labelled phase with nothing and "unknown" beyond its slices; `_depths` (N,); `_sides` (N,) mm; `_people` (N,)
        and `_phases` (N,) text; `_bright` (N,) the grey value that becomes 1. And `beats_images`, `beats_codes` (M, T,
        Y, X), every slice of the training cines along time, with `beats_sides` and `beats_bright`.
    """
    arrays: dict[str, np.ndarray] = {}
    for which in ("training", "validation"):
        cases = list(stacks(data, which))
        cases += [case for cine in cines(data, which) for case in _drawn(cine)]
        arrays |= _packed(which, cases)
    return arrays | _beats(list(cines(data, "training")))


def _drawn(cine: Cine) -> Iterator[Case]:
    """The drawn phases of a cine."""
    for t, codes in enumerate(cine.codes):
        if (codes != task.UNKNOWN).any():
            yield Case(cine.person, f"phase {t}", cine.images[t], codes, cine.side)


def _packed(which: str, cases: list[Case]) -> dict[str, np.ndarray]:
    images = np.zeros((len(cases), DEPTH, WIDTH, WIDTH), np.uint8)
    codes = np.full_like(images, task.UNKNOWN)
    for n, case in enumerate(cases):
        images[n, : len(case.image)] = middle(case.image, 0) // LEVELS * LEVELS
        codes[n, : len(case.image)] = middle(case.codes, task.UNKNOWN)
    return {
        f"{which}_images": images,
        f"{which}_codes": codes,
        f"{which}_depths": np.array([len(case.image) for case in cases]),
        f"{which}_sides": np.array([case.side for case in cases], np.float32),
        f"{which}_bright": np.array([bright(case.image) for case in cases], np.float32),
        f"{which}_people": np.array([case.person for case in cases]),
        f"{which}_phases": np.array([case.phase for case in cases]),
    }


def _beats(found: list[Cine]) -> dict[str, np.ndarray]:
    """The slices of cines along time, on 96 pixels about the heart; slices without a drawn phase are left out."""
    images, codes, sides, brights = [], [], [], []
    for cine in found:
        drawn = np.argwhere(cine.codes == task.CAVITY)
        y, x = (int(n) for n in np.clip(drawn[:, 2:].mean(axis=0), 48, np.array(cine.images.shape[2:]) - 48))
        for z in range(cine.images.shape[1]):
            if (cine.codes[:, z] != task.UNKNOWN).any():
                at = (slice(None), z, slice(y - 48, y + 48), slice(x - 48, x + 48))
                images.append(cine.images[at] // LEVELS * LEVELS)
                codes.append(cine.codes[at])
                sides.append(cine.side)
                brights.append(bright(cine.images))
    return {
        "beats_images": np.stack(images),
        "beats_codes": np.stack(codes),
        "beats_sides": np.array(sides, np.float32),
        "beats_bright": np.array(brights, np.float32),
    }


def bright(image: np.ndarray) -> float:
    """The grey value that preparation makes 1."""
    return max(float(np.percentile(image, task.BRIGHT)), 1.0)


def middle(stack: np.ndarray, fill: int) -> np.ndarray:
    """The middle `WIDTH` pixels of slices (Z, Y, X), filled where they have fewer."""
    out = np.full((len(stack), WIDTH, WIDTH), fill, stack.dtype)
    source, target = [slice(None)], [slice(None)]
    for have in stack.shape[1:]:
        width = min(have, WIDTH)
        source.append(slice((have - width) // 2, (have - width) // 2 + width))
        target.append(slice((WIDTH - width) // 2, (WIDTH - width) // 2 + width))
    out[tuple(target)] = stack[tuple(source)]
    return out


def _read(file: Path) -> tuple[np.ndarray, list[float]]:
    """Values (T, Z, Y, X) and the voxel's sides (z, y, x) of a file; T is 1 where it has no time."""
    from napari_mamba import io

    volume = io.read(file, frame="all")
    return np.asarray(volume.data), [float(side) for side in volume.spacing]
