"""Images of the right kind and of others, each with who it is of, from the folder of training data.

The sources of wrong images are split, as people are: what a limit was chosen on is not what it is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_mamba import io
from napari_mamba.volume import Volume

FIT, CHOOSE, TEST = "fit", "choose", "test"


@dataclass(frozen=True)
class Example:
    """An image: `right` for the bundle or not, `part` says what it is used for, `kind` what it is, for the table.

    `network` is False where the image itself is enough to tell it; `mask` makes what was found in it, (Z, Y, X).
    """

    name: str
    part: str
    kind: str
    right: bool
    make: Callable[[], Volume]
    network: bool = True
    mask: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Source:
    """A scan that no bundle here was made for, or not for all of its parts."""

    path: str
    part: str
    kind: str
    brain: bool = False
    mni: bool = False


SOURCES = (
    Source("abdomen_ct/example_ct.nii.gz", CHOOSE, "abdomen, CT"),
    Source("spine_mr/t1w.nii.gz", CHOOSE, "spine, MR"),
    Source("stroke_mr/T1.nii.gz", CHOOSE, "elsewhere in a head, T1", True),
    Source("stroke_mr/T2.nii.gz", CHOOSE, "elsewhere in a head, T2 or FLAIR", True),
    Source("native_mr/patient01/study1_FLAIR.nii.gz", CHOOSE, "elsewhere in a head, T2 or FLAIR", True),
    Source("native_mr/patient01/study2_T1W.nii.gz", CHOOSE, "elsewhere in a head, T1", True),
    Source("native_mr/patient03/study2_T2W.nii.gz", CHOOSE, "elsewhere in a head, T2 or FLAIR", True),
    Source("headneck_rt/train/*/ct.nii.gz", CHOOSE, "head and neck, CT"),
    Source("abdomen_ct/example_mr_sm.nii.gz", TEST, "abdomen, MR"),
    Source("dicom_ct", TEST, "abdomen, CT"),
    Source("dicom_mr", TEST, "thigh, MR"),
    Source("spine_mr/t2.nii.gz", TEST, "spine, MR"),
    Source("ms_lesion_mr/patient07/T1.nii.gz", TEST, "elsewhere in a head, T1", True, True),
    Source("ms_lesion_mr/patient07/T2.nii.gz", TEST, "elsewhere in a head, T2 or FLAIR", True, True),
    Source("ms_lesion_mr/patient07/FLAIR.nii.gz", TEST, "elsewhere in a head, T2 or FLAIR", True, True),
    Source("native_mr/patient12/study1_T1W.nii.gz", TEST, "elsewhere in a head, T1", True),
    Source("native_mr/patient19/study2_FLAIR.nii.gz", TEST, "elsewhere in a head, T2 or FLAIR", True),
    Source("headneck_rt/validation/*/ct.nii.gz", TEST, "head and neck, CT"),
)

CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda data: data[:, ::-1],
    "back to front": lambda data: data[:, :, ::-1],
    "axes exchanged": lambda data: data.transpose(0, 2, 3, 1),
    "turned by 90 degrees": lambda data: np.rot90(data, 1, (2, 3)),
    "inverted": lambda data: data.max() + data.min() - data,
    "half of it": lambda data: data[:, :, : data.shape[2] // 2],
}
"""What makes a right image (C, Z, Y, X) a wrong one; its header stays as it is."""
ON_ITS_SIDE = "on its side"
"""A right image turned by 90 degrees about its second axis."""
SMALL = "half the size"
"""An image whose header says half of its voxel size, as a head of an animal might be."""
LARGE = "twice the size"
"""The same of twice its voxel size, a header that is wrong."""

WINDOWS = {"brain": (0.0, 80.0), "soft tissue": (-160.0, 240.0), "bone": (-500.0, 1500.0), "all": (-1024.0, 3071.0)}
"""Windows of a CT as pictures of it are kept, in Hounsfield units: the darkest becomes 0."""

IN_A_WINDOW = "a head, CT in a window"
"""What is told by what lies how deep: of other wrong images that is not looked at."""
LOOKS: dict[str, str] = {
    "upside down": "upside down",
    "back to front": "back to front",
    "left to right": "mirrored",
    "axes exchanged": "turned",
    ON_ITS_SIDE: "turned",
    "turned by 90 degrees": "turned",
    "turned by 180 degrees": "turned",
    "turned by 270 degrees": "turned",
    "inverted": "inverted",
    "half of it": "cut off",
    SMALL: "too small",
    LARGE: "too large",
    "abdomen, CT": "like a CT scan",
    "head and neck, CT": "like a CT scan",
    IN_A_WINDOW: "like a CT scan",
    "a head, PET drawn from labels": "like a PET scan",
}
"""What a user is told such an image looks; what is not here looks like another part of the body or another contrast."""
ELSE = "like another part of the body or another contrast"


@lru_cache(maxsize=4)
def read(path: Path) -> Volume:
    """A scan, kept while crops of it are made; of several that match, the first."""
    if "*" in str(path):
        root = Path(str(path).split("*")[0])
        path = min(root.glob(str(path)[len(str(root)) + 1 :]))
    return io.read(path)


def changed(volume: Volume, how: str) -> Volume:
    """A right image made wrong, one of `CHANGES`, or `ON_ITS_SIDE`, `SMALL` or `LARGE`."""
    if how in (SMALL, LARGE):
        sides = np.diag([0.5] * 3 + [1.0]) if how == SMALL else np.diag([2.0] * 3 + [1.0])
        return Volume(volume.data, volume.affine @ sides, volume.channel_names, name=volume.name)
    data = np.asarray(volume.data, np.float32)
    data = np.ascontiguousarray(np.rot90(data, 1, (1, 3)) if how == ON_ITS_SIDE else CHANGES[how](data))
    return Volume(data, volume.affine, volume.channel_names, name=volume.name)


def windowed(volume: Volume, name: str) -> Volume:
    """A CT as a picture of it has it: from 0 to 255, one of `WINDOWS`; its Hounsfield units are gone."""
    low, high = WINDOWS[name]
    values = np.clip((np.asarray(volume.data, np.float32) - low) / (high - low), 0, 1)
    return Volume(np.rint(values * 255), volume.affine, volume.channel_names, name=volume.name)


def crop(volume: Volume, centre: np.ndarray, mm: np.ndarray) -> Volume:
    """The box of `mm` along (z, y, x) around a voxel, moved to lie within the image as far as it fits."""
    count = np.minimum(np.maximum(np.round(mm / volume.spacing), 2), volume.shape).astype(int)
    start = np.clip(np.round(centre - count / 2), 0, np.array(volume.shape) - count).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, count, strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return Volume(np.asarray(volume.data)[(slice(0, 1), *box)], affine, volume.channel_names[:1], name=volume.name)


def at_one_mm(volume: Volume) -> Volume:
    """Resampled linearly to 1 mm, so that its voxel size does not give it away."""
    data = ndimage.zoom(np.asarray(volume.data[0], np.float32), volume.spacing, order=1)
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, :3] / volume.spacing
    return Volume(data[None], affine, volume.channel_names[:1], name=volume.name)


def foreign_crops(
    data: Path, mm: tuple[float, float, float], count: int, avoid: Callable, brains: bool = True
) -> Iterator[Example]:
    """Boxes of about `mm` (z, y, x) out of every source, or those that are no heads; every second one made 1 mm fine.

    `avoid(source, volume, centre)` is asked whether a place may show what the bundle is for.
    """
    for source in SOURCES:
        for number in range(count if brains or not source.brain else 0):

            def make(source: Source = source, number: int = number) -> Volume:
                volume = read(data / source.path)
                random = np.random.default_rng([number, *source.path.encode()])
                while True:
                    inside = np.array(volume.shape) * random.uniform(0.25, 0.75, 3)
                    box = np.array(mm) * random.uniform(0.85, 1.2, 3)
                    cut = crop(volume, inside, box)
                    if avoid(source, volume, inside) or np.asarray(cut.data).std() == 0:
                        continue
                    return at_one_mm(cut) if number % 2 else cut

            part = FIT if source.part == CHOOSE and number % 4 in (1, 2) else source.part
            yield Example(f"{source.path} {number} {mm}", part, source.kind, False, make)


def whole_scans(data: Path, wanted: Callable[[Source], bool]) -> Iterator[Example]:
    """Every source as it is."""
    for source in SOURCES:
        if wanted(source):
            kind = source.kind.replace("elsewhere in a head", "a whole head")
            yield Example(f"{source.path} whole", source.part, kind, False, lambda s=source: read(data / s.path), False)
