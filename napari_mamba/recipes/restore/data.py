"""The MR scans that the recipes of `mr-denoise`, `mr-superres` and `mr-quality` share, people kept apart.

Reads a folder that holds any of `native_mr/patient*/*.nii.gz` and `ms_lesion_mr/patient*/*.nii.gz` (Lesjak et al.,
CC BY) and `stroke_mr/*.nii.gz` (MIT). `pack` makes of the training and validation people (never of the test people,
whose files only an evaluation reads) the arrays of one `.npz`, without pickles. Scan i of n:

| key | what |
| --- | --- |
| `volume_000`, `volume_001`, … | uint8 (Z, Y, X), see below |
| `spacing` | float32 (n, 3): voxel sides along (z, y, x), mm |
| `scale` | float32 (n,): the 99.9th percentile in the file's own units |
| `person` | str (n,): such as "native_mr/patient01"; two visits are one person |
| `contrast` | str (n,): "T1W", "T1", "T1POST", "T2W", "T2" or "FLAIR" |
| `part` | str (n,): "training" or "validation" |
| `source` | str (n,): the file's path below the folder |

A volume is one scan in its file's own grid and axes, cropped to a box around the head; 128 is the 99.9th percentile of
the whole scan, values above 255/128 of it are cut. It is stored as its differences along x modulo 256, which compress
better: `np.cumsum(stored, axis=2, dtype=np.uint8)` are the values. `unpack` does it, and gives a list of `Scan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from napari_mamba.errors import InputError

FULL = 128
"""The value in the packed arrays that stands for a scan's 99.9th percentile."""

TEST = ("native_mr/patient12", "stroke_mr/patient")
VALIDATION = ("native_mr/patient19",)
FOLDERS = ("native_mr", "ms_lesion_mr", "stroke_mr")
NOT_SCANS = ("lesions", "mask", "labels")
ATTRIBUTION = (
    "Lesjak et al., longitudinal MR of multiple sclerosis patients, and A novel public MR image dataset of multiple "
    "sclerosis patients (Neuroinformatics 16, 2018), both CC BY; T1, T2 and FLAIR of one stroke patient, MIT"
)


@dataclass(frozen=True, eq=False)
class Scan:
    """One scan: `data` uint8 (Z, Y, X) in 128ths of `scale`, `spacing` (z, y, x) in mm; the rest as in the table."""

    data: np.ndarray
    spacing: tuple[float, float, float]
    scale: float
    person: str
    contrast: str
    part: str
    source: str

    @property
    def isotropic(self) -> bool:
        """Whether the longest voxel side is less than a fifth longer than the shortest."""
        return max(self.spacing) < 1.2 * min(self.spacing)


def person(file: Path, folder: Path) -> str:
    """Whom a file shows: its data set and patient.

    >>> person(Path("d/native_mr/patient03/study1_T2W.nii.gz"), Path("d"))
    'native_mr/patient03'
    """
    parts = file.relative_to(folder).parts
    return f"{parts[0]}/{parts[1] if len(parts) > 2 else 'patient'}"


def contrast(file: Path) -> str:
    """A scan's contrast, from its file's name.

    >>> contrast(Path("study1_T2W.nii.gz")), contrast(Path("T1POST.nii.gz"))
    ('T2W', 'T1POST')
    """
    return file.name.split(".")[0].split("_")[-1]


def part(who: str) -> str:
    """Which part of the split a person is in: "test", "validation" or "training"."""
    return "test" if who in TEST else "validation" if who in VALIDATION else "training"


def files(folder: Path, parts: Sequence[str]) -> list[Path]:
    """The scans of the people in `parts`, in order.

    Raises
    ------
    InputError
        If there are none.
    """
    folder = Path(folder)
    found = [file for name in FOLDERS for file in sorted((folder / name).rglob("*.nii.gz"))]
    found = [f for f in found if contrast(f) not in NOT_SCANS and part(person(f, folder)) in parts]
    if not found:
        raise InputError(
            f"{folder} holds no scans of people for {' and '.join(parts)}: give the folder that has native_mr, "
            "ms_lesion_mr or stroke_mr in it"
        )
    return found


def head_box(image: np.ndarray, full: float, margin: int = 3) -> tuple[slice, ...]:
    """The box around what is brighter than a tenth of `full`, after a blur that scanner noise does not survive."""
    head = ndimage.uniform_filter(image.astype(np.float32), 5) > 0.1 * full
    box = []
    for axis in range(3):
        inside = np.flatnonzero(head.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(inside):
            return (slice(None),) * 3
        low, high = int(inside[0]), int(inside[-1])
        box.append(slice(max(low - margin, 0), min(high + 1 + margin, image.shape[axis])))
    return tuple(box)


def read(file: Path, folder: Path) -> Scan:
    """One file as a `Scan`."""
    from napari_mamba import io  # needs SimpleITK, which a machine that only trains need not have

    volume = io.read(file)
    image = np.asarray(volume.data)[0].astype(np.float32)
    scale = float(np.percentile(image, 99.9))
    if not scale > 0:
        raise InputError(f"{file} is empty: take it out of the training data")
    cropped = image[head_box(image, scale)]
    who = person(file, Path(folder))
    z, y, x = (float(side) for side in volume.spacing)
    return Scan(
        data=np.clip(np.rint(cropped * (FULL / scale)), 0, 255).astype(np.uint8),
        spacing=(z, y, x),
        scale=scale,
        person=who,
        contrast=contrast(file),
        part=part(who),
        source=file.relative_to(folder).as_posix(),
    )


def pack(folder: Path) -> dict[str, np.ndarray]:
    """The training and validation people's scans as the arrays described above."""
    scans = [read(file, Path(folder)) for file in files(folder, ("training", "validation"))]
    arrays = {f"volume_{i:03d}": np.diff(scan.data, axis=2, prepend=np.uint8(0)) for i, scan in enumerate(scans)}
    arrays["spacing"] = np.array([scan.spacing for scan in scans], np.float32)
    arrays["scale"] = np.array([scan.scale for scan in scans], np.float32)
    for key in ("person", "contrast", "part", "source"):
        arrays[key] = np.array([getattr(scan, key) for scan in scans])
    return arrays


def unpack(arrays: Mapping[str, Any], which: str | None = None) -> list[Scan]:
    """The scans in `arrays`, those of the part `which` ("training", "validation") alone if it is given."""
    return [scan for scan in _scans(arrays) if which is None or scan.part == which]


def _scans(arrays: Mapping[str, Any]) -> Iterator[Scan]:
    for i in range(len(arrays["scale"])):
        z, y, x = (float(side) for side in arrays["spacing"][i])
        words = {key: str(arrays[key][i]) for key in ("person", "contrast", "part", "source")}
        data = np.cumsum(arrays[f"volume_{i:03d}"], axis=2, dtype=np.uint8)
        yield Scan(data, (z, y, x), float(arrays["scale"][i]), **words)
