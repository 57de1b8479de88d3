"""The head-and-neck plans of the OpenKBP challenge as arrays, and as what a network takes.

Reads a folder with `train/` and `validation/`, in them a folder for each patient with `ct.nii.gz` (HU),
`dose_cgy.nii.gz` (cGy) and `structures.nii.gz` (a bit for each structure). `pack` makes the arrays of one `.npz`:

| key | what |
| --- | --- |
| `training_ct`, `validation_ct` | uint8 (N, Z, Y, X): 0 is −1000 HU, 250 is 1000 HU, cut at both |
| `…_dose` | uint16, cGy |
| `…_structures` | uint16, bits as in the files |
| `…_sides` | float32 (N, 3): voxel sides along (z, y, x), mm |
| `…_patients` | str (N,): folder names |

Axes are z from the feet to the head, y from the back to the front, x from the left to the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.recipes.dose.task import CHANNELS, ORGAN_BIT, ORGANS, POSSIBLE_BIT, TARGET_BIT, TARGETS, UNIT

STEPS = 125.0
"""Steps of the stored CT for a density of 1."""

ATTRIBUTION = "OpenKBP (Babier et al., Medical Physics 48:5549, 2021), MIT"
PARTS = {"training": "train", "validation": "validation"}


def patients(folder: Path, part: str) -> list[Path]:
    """The patients' folders of a part, in order; raises `InputError` where there are none."""
    found = sorted((p for p in (Path(folder) / PARTS[part]).glob("pt_*") if p.is_dir()), key=lambda p: int(p.name[3:]))
    if not found:
        raise InputError(f"{folder} has no {PARTS[part]}/pt_*: give the folder of the OpenKBP patients")
    return found


def read(patient: Path) -> dict[str, np.ndarray]:
    """One patient's arrays, as in the table."""
    from napari_mamba import io  # needs what a machine that only trains need not have
    from napari_mamba.engine.preparation.prepare import prepare

    def oriented(name: str) -> Any:
        return prepare(io.read(patient / name), [{"step": "orient", "axcodes": "RAS"}])

    ct, dose, structures = (oriented(name) for name in ("ct.nii.gz", "dose_cgy.nii.gz", "structures.nii.gz"))
    stored = np.rint((np.asarray(ct.data[0], np.float32) + 1000) * (STEPS / 1000))
    return {
        "ct": stored.clip(0, 2 * STEPS).astype(np.uint8),
        "dose": np.asarray(dose.data[0]).astype(np.uint16),
        "structures": np.asarray(structures.data[0]).astype(np.uint16),
        "sides": np.array(ct.spacing, np.float32),
        "patients": np.array(patient.name),
    }


def pack(folder: Path) -> dict[str, np.ndarray]:
    """All patients' arrays."""
    arrays: dict[str, np.ndarray] = {}
    for part in PARTS:
        read_all = [read(patient) for patient in patients(folder, part)]
        arrays |= {f"{part}_{key}": np.stack([one[key] for one in read_all]) for key in read_all[0]}
    return arrays


def bits(structures: Tensor, number: int) -> Tensor:
    """The mask of one bit, of an integer tensor."""
    return (structures >> number) & 1


def channels(ct: Tensor, structures: Tensor, sides: Tensor) -> Tensor:
    """A patient's input (CHANNELS, Z, Y, X) float32; see `napari_mamba.models.dose`.

    Parameters
    ----------
    ct, structures : (Z, Y, X) tensors
        As stored; `structures` of a signed integer type.
    sides : (3,) tensor
        Voxel sides along (z, y, x), mm.
    """
    x = torch.zeros(CHANNELS, *ct.shape, device=ct.device)
    x[0] = ct / STEPS
    for number in range(len(ORGANS)):
        x[1 + number] = bits(structures, ORGAN_BIT + number)
    for number, prescribed in enumerate(TARGETS.values()):
        x[CHANNELS - 4] += bits(structures, TARGET_BIT + number) * (prescribed / UNIT)
    possible = bits(structures, POSSIBLE_BIT)
    x[CHANNELS - 3] = possible
    x[CHANNELS - 2] = possible * sides[0] / 10
    x[CHANNELS - 1] = possible * sides[2] / 10
    return x


class Patients:
    """The patients of a part on a device, and the first guess of each one's dose.

    Parameters
    ----------
    arrays : mapping of str to array
        As `pack` makes them.
    part : str
        "training" or "validation".
    device : device
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], part: str, device: torch.device) -> None:
        self.device = device
        self.ct = torch.from_numpy(arrays[f"{part}_ct"]).to(device)
        self.structures = torch.from_numpy(arrays[f"{part}_structures"].astype(np.int16)).to(device)
        self.dose = torch.from_numpy(arrays[f"{part}_dose"].astype(np.int16)).to(device)
        self.sides = torch.from_numpy(arrays[f"{part}_sides"]).to(device)
        self.names = [str(name) for name in arrays[f"{part}_patients"]]
        self.guesses: list[Tensor] = []
        possible = arrays[f"{part}_structures"] & (1 << POSSIBLE_BIT) > 0
        self.boxes = [_box(mask) for mask in possible]
        self.volume = [float(np.prod(sides)) for sides in arrays[f"{part}_sides"]]

    def __len__(self) -> int:
        return len(self.ct)

    def channels(self, number: int) -> Tensor:
        """A patient's input without a first guess."""
        return channels(self.ct[number], self.structures[number], self.sides[number])

    def guess(self, network: Any) -> None:
        """Let a `FluenceDose` make every patient's first guess; kept in float16."""
        self.guesses = [network.guess(self.channels(number)[None])[0].half() for number in range(len(self))]

    def input(self, number: int) -> Tensor:
        """A patient's input with its first guess."""
        return torch.cat([self.channels(number), self.guesses[number].float()])

    def truth(self, number: int) -> Tensor:
        """A patient's dose (Z, Y, X) in Gy."""
        return self.dose[number].float() / 100


def _box(mask: np.ndarray) -> tuple[tuple[int, int], ...]:
    """First and last voxel along each axis."""
    box = []
    for axis in range(3):
        places = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        box.append((int(places[0]), int(places[-1])))
    return tuple(box)
