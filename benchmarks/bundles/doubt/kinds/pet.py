"""PET of heads, drawn from label maps: there is no real one in the data.

Of a tracer that grey matter takes up (as FDG), or one that white matter keeps (as those for amyloid): a head in voxels
of 1 to 3 mm, as smooth as scanners and their filters leave it, with noise that grows with what was taken up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_mamba.engine.preparation.axes import orient
from napari_mamba.engine.preparation.state import State
from napari_mamba.recipes.brain.structures import NAMES, tables
from napari_mamba.volume import Volume

KIND = "a head, PET drawn from labels"
IMAGES = 3
"""Of each label map."""
FLUID = ("ventricle", "horn", "third", "fourth", "csf", "plexus")
WHITE = ("white", "cerebellum_white", "stem", "cord", "ventral", "chiasm", "nerve", "lesion")
OUTSIDE = ("skin", "soft", "skull", "marrow", "dura", "eye", "vessel", "other_502", "other_508", "other_509")
TRACERS: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "grey": ((0.75, 1.0), (0.25, 0.45)),
    "white": ((0.4, 0.7), (0.75, 1.0)),
}
"""Uptake of grey and of white matter, lowest and highest."""


@lru_cache(maxsize=2)
def _groups(path: Path, read: Callable[[Path], Volume]) -> np.ndarray:
    """Indices into `NAMES` (Z, Y, X), RAS, every second millimetre along each axis."""
    volume = read(path)
    state = orient(State(np.asarray(volume.data[:1]), np.array(volume.affine[:3, :3])), "RAS")[0]
    labels = np.asarray(state.data[0])[::2, ::2, ::2]
    found = np.unique(labels)
    return np.asarray(tables(found)["group"])[np.searchsorted(found, labels)]


def pet(path: Path, read: Callable[[Path], Volume], number: int) -> Volume:
    """The `number`-th image of a label map, always the same."""
    random = np.random.default_rng([number, *path.name.encode()])
    groups = _groups(path, read)
    grey, white = TRACERS["grey" if random.random() < 0.6 else "white"]
    uptake = random.uniform(*grey, len(NAMES))
    for names, low, high in ((FLUID, 0.05, 0.15), (WHITE, *white), (OUTSIDE, 0.05, 0.35), (("air",), 0.0, 0.02)):
        level = random.uniform(low, high)
        for name in names:
            uptake[NAMES.index(name)] = level * random.uniform(0.85, 1.15)
    values = ndimage.gaussian_filter(uptake[groups], random.uniform(1.7, 3.4) / 2)
    size = random.uniform(1.0, 3.0)
    values = np.asarray(ndimage.zoom(values, 2 / size, order=1), np.float32)
    noise = random.standard_normal(values.shape) * np.sqrt(np.clip(values, 0.02, None))
    values = values + random.uniform(0.02, 0.15) * ndimage.gaussian_filter(noise, random.uniform(0.4, 1.0))
    low_end = int(random.integers(0, max(1, len(values) // 4)))  # scanners differ in how much of the neck is in view
    made = np.clip(values[low_end:], 0, None)[None].astype(np.float32) * random.uniform(1e3, 3e4)
    return Volume(made, np.diag([size, size, size, 1.0])[[2, 1, 0, 3]], name=path.name)
