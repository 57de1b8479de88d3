"""Masks of adrenal glands, and of other organs of a gland's volume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.bundles.doubt.kinds.images import CHOOSE, FIT, TEST, Example, read
from napari_mamba import io
from napari_mamba.volume import Volume

RAS = np.eye(4)[[2, 1, 0, 3]]  # (z, y, x) steps of 1 mm
BITS = {1: "brainstem", 3: "parotid gland", 4: "parotid gland", 5: "oesophagus", 6: "larynx", 8: "target", 2: "cord"}


def examples(data: Path) -> Iterator[Example]:
    """Masks of adrenal glands; masks of other organs, of a gland's volume in ml."""
    from napari_mamba.recipes.shape.data import glands, load

    stored = load(data / "adrenal_shapes")
    for people, name, most in (("training", "train", 160), ("validation", "val", 60), ("test", "test", 120)):
        masks, _ = glands(stored, name)
        for number, mask in enumerate(masks[:most]):
            part = TEST if people == "test" else CHOOSE if people == "validation" or number % 4 == 0 else FIT
            volume = Volume(np.ascontiguousarray(mask[None]).astype(np.uint8), RAS)
            yield Example(f"{name} {number}", part, "a gland", True, lambda v=volume: v)
    yield from _other_organs(data)


def _other_organs(data: Path) -> Iterator[Example]:
    for folder in ("train", "validation"):
        for number, path in enumerate(sorted((data / "headneck_rt" / folder).glob("*/structures.nii.gz"))[:10]):
            part = TEST if folder == "validation" else (FIT, CHOOSE)[number % 2]
            for bit, organ in BITS.items():
                made = _organ(path, bit)
                if made is not None:
                    yield Example(f"{path.parent.name} {bit}", part, organ, False, lambda v=made: v)
    from napari_mamba.recipes.hippocampus.data import pairs

    for people, part in (("training", FIT), ("validation", CHOOSE), ("test", TEST)):
        for _, label in pairs(data / "hippocampus_mr", people)[:16]:
            yield Example(label.name, part, "hippocampus", False, lambda path=label: _mask(io.read(path)))


def _mask(volume: Volume) -> Volume:
    return volume.with_data((np.asarray(volume.data) > 0).astype(np.uint8))


def _organ(path: Path, bit: int) -> Volume | None:
    """One structure's mask, in a box around it; None where nobody drew it, or it has another volume than a gland."""
    volume = read(path)
    mask = (np.asarray(volume.data[0]).astype(int) >> bit) & 1
    if not 1000 < mask.sum() * float(np.prod(volume.spacing)) < 20_000:
        return None
    return volume.with_data(mask[None].astype(np.uint8))
