"""The label maps and the template, read once and packed small."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.recipes.brain.structures import CSF, tables

HELD_OUT = 3
"""The last so many maps are never trained on."""

MARGINS = ((48, 24), (28, 28), (20, 20))
"""Voxels kept below and above the brain, behind and before it, left and right of it; the neck is cut short."""

ORIENT = {"step": "orient", "axcodes": "RAS"}


def pack(data: Path) -> dict[str, np.ndarray]:
    """Every label map of a folder, cropped to the head around the brain, and the ICBM template where nilearn is there.

    Returns
    -------
    dict
        "raw" (R,) int16, the raw labels; "map_00" and so on uint8, for `unpack`; "shapes" (maps, 3) int16; "brain"
        (maps, 6) int16, the brain's box in each (first z, y, x, then last + 1); "icbm_t1" (Z, Y, X) uint8 and
        "icbm_tissue" (Z, Y, X) uint8 (1 grey, 2 white) if nilearn is installed.
    """
    files = sorted(data.glob("*.nii.gz")) or sorted((data / "brain_label_maps").glob("*.nii.gz"))
    if len(files) <= HELD_OUT:
        raise InputError(f"{data} holds {len(files)} label maps (*.nii.gz): give the folder with SynthSeg's 20")
    maps = [_read(file) for file in files]
    raw = np.unique(np.concatenate([np.unique(one) for one in maps]))
    target = tables(raw)["target"]
    brain = (target > 0) & (target != CSF)  # CSF runs down the spine
    packed: dict[str, np.ndarray] = {"raw": raw.astype(np.int16)}
    boxes, shapes = [], []
    for number, one in enumerate(maps):
        indices = np.searchsorted(raw, one).astype(np.uint8)
        cut, box = crop(indices, brain)
        cropped = np.ascontiguousarray(indices[cut])
        packed[f"map_{number:02d}"] = np.frombuffer(lzma.compress(cropped.tobytes()), np.uint8)
        boxes.append(box)
        shapes.append(cropped.shape)
    packed |= {"brain": np.array(boxes, np.int16), "shapes": np.array(shapes, np.int16)}
    return packed | template()


def unpack(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The label maps that `pack` made, each (Z, Y, X) uint8: indices into "raw", RAS, 1 mm."""
    return [
        # The speckle of air in the head defeats zip: LZMA leaves two thirds of what it does.
        np.frombuffer(lzma.decompress(arrays[f"map_{number:02d}"].tobytes()), np.uint8).reshape(shape)
        for number, shape in enumerate(arrays["shapes"].astype(int))
    ]


def _read(file: Path) -> np.ndarray:
    from napari_mamba import io
    from napari_mamba.engine.preparation.prepare import prepare

    volume = io.read(file)
    if not np.allclose(volume.spacing, 1, atol=0.02):
        raise InputError(f"{file.name} has voxels of {volume.spacing} mm: the label maps have to be at 1 mm")
    return np.rint(prepare(volume, [ORIENT]).data[0]).astype(np.int16)


def crop(indices: np.ndarray, brain: np.ndarray) -> tuple[tuple[slice, ...], list[int]]:
    """The head around the brain, and the brain's box in it.

    Parameters
    ----------
    indices : ndarray, shape (Z, Y, X), integer
    brain : ndarray of bool
        Which of the indices belong to the brain.
    """
    inside = brain[indices]
    cut, first, last = [], [], []
    for axis, (before, after) in enumerate(MARGINS):
        planes = np.flatnonzero(inside.sum(axis=tuple(a for a in range(3) if a != axis)) > 20)
        start = max(int(planes[0]) - before, 0)
        cut.append(slice(start, min(int(planes[-1]) + 1 + after, indices.shape[axis])))
        first.append(int(planes[0]) - start)
        last.append(int(planes[-1]) + 1 - start)
    return tuple(cut), first + last


def template() -> dict[str, np.ndarray]:
    """ICBM 2009a T1 and its grey (1) and white (2) matter, RAS at 1 mm, from nilearn; nothing where it is missing."""
    try:
        from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
    except ImportError:
        return {}
    t1, grey, white = (
        np.asarray(load(resolution=1).get_fdata(), np.float32).transpose(2, 1, 0)
        for load in (load_mni152_template, load_mni152_gm_template, load_mni152_wm_template)
    )
    tissue = np.where((grey > 0.5) & (grey >= white), 1, np.where(white > 0.5, 2, 0)).astype(np.uint8)
    low, high = np.percentile(t1, [0.5, 99.5])
    return {
        "icbm_t1": np.rint(np.clip((t1 - low) / (high - low), 0, 1) * 255).astype(np.uint8),
        "icbm_tissue": tissue,
    }
