"""Images of heads: scans, each as it is and changed as scans differ, and images made from label maps.

What is changed: how much of the head is in view, noise, shading, brightness, blur, how thick the slices are. The label
maps have an image drawn by the synthesis' own contrasts (`recipes.brain`), turned a little, whole or stripped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.bundles.doubt.kinds.images import (
    CHOOSE,
    FIT,
    SMALL,
    TEST,
    Example,
    changed,
    foreign_crops,
    read,
    whole_scans,
)
from napari_mamba.engine.preparation.axes import orient
from napari_mamba.engine.preparation.state import State
from napari_mamba.recipes.brain.structures import HEAD, NAMES, tables
from napari_mamba.recipes.brain.synthetic import contrast
from napari_mamba.volume import Volume

SAMPLE = Path(__file__).parents[4] / "sample_data/icbm2009a_t1.nii.gz"
PEOPLE = {
    "native_mr/patient01": FIT,
    "native_mr/patient03": FIT,
    "ms_lesion_mr/patient07": FIT,
    "native_mr/patient09": CHOOSE,
    "native_mr/patient19": CHOOSE,
    "native_mr/patient12": TEST,
    "stroke_mr": TEST,
}
"""The two test people are those whom no bundle's training saw."""
MAPS = {FIT: range(1, 13), CHOOSE: range(13, 17), TEST: range(17, 21)}
"""The last three label maps were in no training."""


@dataclass(frozen=True)
class Head:
    """A scan of a head, or a label map that an image is drawn from."""

    path: Path
    part: str
    is_map: bool = False


def scans(data: Path) -> Iterator[Head]:
    """All scans of heads, and the sample, an average of people, which tests alone."""
    for person, part in PEOPLE.items():
        for path in sorted((data / person).glob("*.nii.gz")):
            if path.name != "lesions.nii.gz":
                yield Head(path, part)
    yield Head(SAMPLE, TEST)


def maps(data: Path) -> Iterator[Head]:
    """The label maps."""
    for part, numbers in MAPS.items():
        for number in numbers:
            yield Head(data / f"brain_label_maps/training_seg_{number:02d}.nii.gz", part, True)


@lru_cache(maxsize=1)
def image(head: Head, number: int, thick: bool = False) -> Volume:
    """The `number`-th image of a head: 0 is the scan as it is; always the same. `thick` gives all thick slices."""
    random = np.random.default_rng([number, thick, *head.path.name.encode(), *head.path.parent.name.encode()])
    volume = drawn(head, random) if head.is_map else read(head.path)
    if number == 0 and not head.is_map:
        isotropic = max(volume.spacing) < 1.5 * min(volume.spacing)
        return thickened(volume, random) if thick and isotropic else volume
    volume = cut(volume, random)
    values = np.asarray(volume.data[0], np.float32)
    if random.random() < 0.4:
        values = ndimage.gaussian_filter(values, random.uniform(0.3, 1.0))
    if random.random() < 0.5:
        values = values * shading(values.shape, random)
    values = values / max(float(np.percentile(values, 99.5)), 1e-6)
    values = np.clip(values, 0, None) ** np.exp(random.normal(0, 0.2))
    if random.random() < 0.6:
        level = random.uniform(0, 0.1)
        noise = level * random.standard_normal((2, *values.shape))
        values = np.hypot(values + noise[0], noise[1])
    made = volume.with_data(values[None].astype(np.float32))
    thin = max(made.spacing) < 1.5 * min(made.spacing)
    return thickened(made, random) if thin and (thick or random.random() < 0.3) else made


def cut(volume: Volume, random: np.random.Generator) -> Volume:
    """A part of the image, 70 to 100% of each axis, anywhere in it; every second one whole."""
    if random.random() < 0.5:
        return volume
    count = np.maximum(np.round(np.array(volume.shape) * random.uniform(0.7, 1.0, 3)), 2).astype(int)
    start = np.floor(random.random(3) * (np.array(volume.shape) - count + 1)).astype(int)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    box = tuple(slice(a, a + n) for a, n in zip(start, count, strict=True))
    return Volume(np.asarray(volume.data)[(slice(0, 1), *box)], affine, volume.channel_names[:1], name=volume.name)


def thickened(volume: Volume, random: np.random.Generator) -> Volume:
    """Slices along one axis averaged, 2 to 6 of them."""
    axis, factor = int(random.integers(3)), int(random.integers(2, 7))
    values = np.moveaxis(np.asarray(volume.data[0], np.float32), axis, 0)
    values = values[: len(values) // factor * factor]
    values = values.reshape(-1, factor, *values.shape[1:]).mean(1)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    affine[:3, axis] *= factor
    return Volume(np.moveaxis(values, 0, axis)[None], affine, volume.channel_names[:1], name=volume.name)


def shading(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A smooth field about 1."""
    nodes = random.normal(0, random.uniform(0.05, 0.35), (4, 4, 4))
    places = [np.linspace(0, 3, n) for n in shape]
    field = nodes
    for axis, place in enumerate(places):
        low = np.minimum(place.astype(int), 2)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        field = np.take(field, low, axis) * (1 - share) + np.take(field, low + 1, axis) * share
    return np.exp(field).astype(np.float32)


@lru_cache(maxsize=3)
def _labels(path: Path) -> np.ndarray:
    """(Z, Y, X) int16, RAS, 1 mm."""
    volume = read(path)
    state = orient(State(np.asarray(volume.data[:1]), np.array(volume.affine[:3, :3])), "RAS")[0]
    return np.asarray(state.data[0]).astype(np.int16)


def drawn(head: Head, random: np.random.Generator, step: float = 2.0) -> Volume:
    """An image of a label map at about 2 mm, turned by up to some ten degrees, of a contrast of the synthesis."""
    labels = _labels(head.path)
    size = np.array(labels.shape)
    count = (size / step).astype(int)
    turn = np.eye(3) + _skew(random.normal(0, 0.1, 3))
    grid = np.stack(np.meshgrid(*(np.arange(n) * step for n in count), indexing="ij")).reshape(3, -1)
    places = turn @ (grid - size[:, None] / 2) / random.uniform(0.9, 1.12) + size[:, None] / 2
    index = np.rint(places).astype(int)
    inside = ((index >= 0) & (index < size[:, None])).all(0)
    seen = np.where(inside, labels[tuple(np.clip(index, 0, size[:, None] - 1))], 0).reshape(count)
    raw = np.unique(seen)
    group = tables(raw)["group"]
    mean, deviation = contrast.draw(random)
    if random.random() < 0.35:  # stripped
        gone = np.isin(group, [NAMES.index(name) for name in HEAD])
        group = np.where(gone, NAMES.index("air"), group)
    which = group[np.searchsorted(raw, seen)]
    values = mean[0, which] + deviation[0, which] * random.standard_normal(which.shape)
    values = ndimage.gaussian_filter(np.clip(values, 0, None).astype(np.float32), random.uniform(0.3, 0.7))
    return Volume(values[None], np.diag([step, step, step, 1.0])[[2, 1, 0, 3]], name=head.path.name)


def _skew(a: np.ndarray) -> np.ndarray:
    return np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])


WRONG = ("upside down", "back to front", "inverted", "axes exchanged", "turned by 90 degrees", SMALL)


def examples(data: Path, thick: bool = False) -> Iterator[Example]:
    """Images of every head, of each image one of the changes that are `WRONG`, in turn; other scans and parts."""
    for head in [*scans(data), *maps(data)]:
        for number in range(8 if head.is_map else 3):
            what = "the sample" if head.path == SAMPLE else "drawn from labels" if head.is_map else "a scan"
            name = f"{head.path.parent.name}/{head.path.name} {number}"

            def make(head: Head = head, number: int = number) -> Volume:
                return image(head, number, thick)

            yield Example(name, head.part, what, True, make, False)
            turn = number + sum(map(ord, head.path.name + head.path.parent.name))
            for how in WRONG if head.path == SAMPLE or head.part != TEST else [WRONG[turn % len(WRONG)]]:
                make_wrong = lambda make=make, how=how: changed(make(), how)  # noqa: E731
                yield Example(f"{name} {how}", head.part, how, False, make_wrong, False)
    yield from others(data)


def others(data: Path) -> Iterator[Example]:
    """Scans of other organs, whole and in boxes; CTs of heads and necks; hearts."""
    from napari_mamba.recipes.heart import task

    for mm in ((150, 170, 150), (90, 110, 100)):
        for example in foreign_crops(data, mm, 4, lambda *_: False, brains=False):
            yield replace(example, network=False)
    yield from whole_scans(data, lambda source: not source.brain)
    for people, part, count in (("train", FIT, 8), ("train", CHOOSE, 8), ("validation", TEST, 8)):
        paths = sorted((data / "headneck_rt" / people).glob("*/ct.nii.gz"))
        for path in paths[-count:] if part == CHOOSE else paths[:count]:
            name = f"{people} {path.parent.name}"
            yield Example(name, part, "head and neck, CT", False, lambda path=path: read(path), False)
    for number, path in enumerate(sorted((data / "heart_mr/stacks").glob("*_ED_image.nii.gz"))):
        held = task.part(path.name.rsplit("_", 2)[0]) == "test"
        part = TEST if held else (FIT, CHOOSE)[number % 2]
        yield Example(path.name, part, "heart, MR", False, lambda path=path: read(path), False)
