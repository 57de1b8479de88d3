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

from benchmarks.bundles.doubt.kinds import pet
from benchmarks.bundles.doubt.kinds.images import (
    CHOOSE,
    FIT,
    IN_A_WINDOW,
    LARGE,
    ON_ITS_SIDE,
    SMALL,
    TEST,
    WINDOWS,
    Example,
    at_one_mm,
    changed,
    foreign_crops,
    read,
    whole_scans,
    windowed,
)
from napari_mamba.engine.preparation.axes import orient
from napari_mamba.engine.preparation.state import State
from napari_mamba.recipes.brain.structures import HEAD, NAMES, STRUCTURES, tables
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
WHOLE = 8
"""Of the label maps that fit so many have whole heads drawn: more take long."""


@dataclass(frozen=True)
class Head:
    """A scan of a head, or a label map that an image is drawn from."""

    path: Path
    part: str
    is_map: bool = False
    number: int = 0


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
            yield Head(data / f"brain_label_maps/training_seg_{number:02d}.nii.gz", part, True, number)


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


@lru_cache(maxsize=8)
def box_of(path: Path, brain: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of the head, or of the brain in it: first (z, y, x), and last + 1."""
    labels = _labels(path)
    inside = np.isin(labels, list(STRUCTURES)) & (labels != 24) if brain else labels > 0
    spans = [np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return np.array([int(s[0]) for s in spans]), np.array([int(s[-1]) + 1 for s in spans])


@lru_cache(maxsize=8)
def middle_of(head: Head, label: int) -> np.ndarray:
    """The middle (z, y, x) of a label, in voxels of 1 mm."""
    return np.argwhere(_labels(head.path) == label).mean(0)


def drawn(head: Head, random: np.random.Generator) -> Volume:
    """An image of a label map at 1 to 2 mm, turned by up to some ten degrees, of a contrast of the synthesis.

    Some are stripped, some laid out on voxels of half the size, as scanners interpolate and atlases are kept.
    """
    step, stripped = float(random.choice([1.0, 1.5, 2.0, 2.0])), bool(random.random() < 0.35)
    size = np.array(_labels(head.path).shape)
    middle, mm = size / 2, size
    if step < 2 or random.random() < 0.5:  # as scans and atlases have it: little air about the head, or the brain
        low, high = box_of(head.path, stripped)
        middle, mm = (low + high) / 2, (high - low) * 1.1 + random.uniform(0, 20, 3)
    made = draw(head, random, middle, mm, step, stripped=stripped)
    if random.random() < 0.3:
        finer = np.diag([0.5, 0.5, 0.5, 1.0])
        values = ndimage.zoom(np.asarray(made.data[0]), 2, order=1, grid_mode=True, mode="nearest")
        return Volume(values[None], made.affine @ finer, name=made.name)
    return made


def draw(
    head: Head,
    random: np.random.Generator,
    middle: np.ndarray,
    mm: np.ndarray,
    step: float,
    kind: str = "",
    stripped: bool = False,
) -> Volume:
    """A box of `mm` (z, y, x) around a place (z, y, x) of a label map as an image, voxels of `step`, of a contrast."""
    labels = _labels(head.path)
    size, count = np.array(labels.shape), np.maximum((np.asarray(mm) / step).astype(int), 8)
    turn = np.eye(3) + _skew(random.normal(0, 0.1, 3))
    grid = np.stack(np.meshgrid(*((np.arange(n) - (n - 1) / 2) * step for n in count), indexing="ij")).reshape(3, -1)
    places = turn @ grid / random.uniform(0.9, 1.12) + np.asarray(middle)[:, None]
    index = np.rint(places).astype(int)
    inside = ((index >= 0) & (index < size[:, None])).all(0)
    seen = np.where(inside, labels[tuple(np.clip(index, 0, size[:, None] - 1))], 0).reshape(count)
    raw = np.unique(seen)
    group = tables(raw)["group"]
    mean, deviation = contrast.draw(random, kind)
    if stripped:
        gone = np.isin(group, [NAMES.index(name) for name in HEAD])
        group = np.where(gone, NAMES.index("air"), group)
    which = group[np.searchsorted(raw, seen)]
    values = mean[0, which] + deviation[0, which] * random.standard_normal(which.shape)
    values = ndimage.gaussian_filter(np.clip(values, 0, None).astype(np.float32), random.uniform(0.3, 0.7))
    return Volume(values[None], np.diag([step, step, step, 1.0])[[2, 1, 0, 3]], name=head.path.name)


def head_ct(path: Path, window: str) -> Volume:
    """The upper 14 to 24 cm of a planning CT, with little air about it, in a window; every second one of 1 mm."""
    volume = read(path)
    random = np.random.default_rng([*f"{path.parent.name} {window}".encode()])
    state = orient(State(np.asarray(volume.data[:1], np.float32), np.array(volume.affine[:3, :3])), "RAS")[0]
    values, sides = np.asarray(state.data[0]), np.array(state.spacing)
    body = values > -300
    top = int(np.flatnonzero(body.mean((1, 2)) > 0.01)[-1]) + 1
    first = max(top - round(float(random.uniform(140, 240)) / sides[0]), 0)
    places = [np.flatnonzero(body[first:top].any(axis=axes)) for axes in ((0, 2), (0, 1))]
    edge = int(random.integers(0, 6))
    box = tuple(slice(max(int(one[0]) - edge, 0), int(one[-1]) + 1 + edge) for one in places)
    affine = np.eye(4)
    affine[:3, :3] = state.affine
    made = Volume(np.ascontiguousarray(values[(slice(first, top + edge), *box)])[None], affine, name=path.parent.name)
    return windowed(at_one_mm(made) if random.random() < 0.5 else made, window)


def _skew(a: np.ndarray) -> np.ndarray:
    return np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])


WRONG = (
    "upside down",
    "back to front",
    "inverted",
    "axes exchanged",
    "turned by 90 degrees",
    "half of it",
    SMALL,
    ON_ITS_SIDE,
    LARGE,
)


def examples(data: Path, thick: bool = False) -> Iterator[Example]:
    """Images of every head, of each image one of the changes that are `WRONG`, in turn; other scans and parts."""
    for head in [*scans(data), *(one for one in maps(data) if one.part != FIT or one.number <= WHOLE)]:
        for number in range(4 if head.is_map else 3):
            what = "the sample" if head.path == SAMPLE else "drawn from labels" if head.is_map else "a scan"
            name = f"{head.path.parent.name}/{head.path.name} {number}"

            def make(head: Head = head, number: int = number) -> Volume:
                return image(head, number, thick)

            yield Example(name, head.part, what, True, make, False)
            turn = number + sum(map(ord, head.path.name + head.path.parent.name))
            for how in WRONG if head.path == SAMPLE or head.part != TEST else [WRONG[turn % len(WRONG)]]:
                make_wrong = lambda make=make, how=how: changed(make(), how)  # noqa: E731
                yield Example(f"{name} {how}", head.part, how, False, make_wrong, False)
    for head in maps(data):
        for number in range(pet.IMAGES):
            make_pet = lambda path=head.path, number=number: pet.pet(path, read, number)  # noqa: E731
            yield Example(f"{head.path.name} PET {number}", head.part, pet.KIND, False, make_pet, False)
    yield from others(data)


def others(data: Path) -> Iterator[Example]:
    """Scans of other organs, whole and in boxes; CTs of heads and necks; hearts."""
    from napari_mamba.recipes.heart import task

    for mm in ((150, 170, 150), (90, 110, 100)):
        for example in foreign_crops(data, mm, 4, lambda *_: False, brains=False):
            yield replace(example, network=False)
    yield from whole_scans(data, lambda source: not source.brain)
    for people, part, count in (("train", FIT, 24), ("train", CHOOSE, 8), ("validation", TEST, 8)):
        paths = sorted((data / "headneck_rt" / people).glob("*/ct.nii.gz"))
        for number, path in enumerate(paths[-count:] if part == CHOOSE else paths[:count]):
            name = f"{people} {path.parent.name}"
            if number < 8:
                yield Example(name, part, "head and neck, CT", False, lambda path=path: read(path), False)
            for window in WINDOWS:
                make = lambda path=path, window=window: head_ct(path, window)  # noqa: E731
                yield Example(f"{name} {window}", part, IN_A_WINDOW, False, make, False)
    for number, path in enumerate(sorted((data / "heart_mr/stacks").glob("*_ED_image.nii.gz"))):
        held = task.part(path.name.rsplit("_", 2)[0]) == "test"
        part = TEST if held else (FIT, CHOOSE)[number % 2]
        yield Example(path.name, part, "heart, MR", False, lambda path=path: read(path), False)
