"""Hippocampi: the crops of Task04, boxes of several sizes around those of whole heads, and what is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.bundles.doubt.kinds import heads
from benchmarks.bundles.doubt.kinds.heads import SAMPLE, shading
from benchmarks.bundles.doubt.kinds.images import (
    CHANGES,
    CHOOSE,
    FIT,
    TEST,
    Example,
    Source,
    at_one_mm,
    changed,
    crop,
    foreign_crops,
    read,
    whole_scans,
)
from napari_mamba import io
from napari_mamba.volume import Volume

MNI = np.array([[26.0, -22.0, -14.0], [-26.0, -22.0, -14.0]])
WRONG = (*CHANGES,)
SIDES, DRAWN, DRAWN_ELSEWHERE = (17, 53), 4, 4
"""Labels of the two hippocampi, and how many boxes a label map has drawn of each, and elsewhere."""


@dataclass(frozen=True)
class Place:
    """A T1 scan, the middles of its two hippocampi in RAS mm, and its scans of other contrasts on the same axes."""

    path: str
    part: str
    middles: tuple[tuple[float, float, float], ...]
    others: tuple[str, ...] = ()


PLACES: tuple[Place, ...] = (
    Place(
        "stroke_mr/T1.nii.gz",
        FIT,
        ((-16.7, -21.6, -3.0), (24.1, -22.3, -5.8)),
        ("stroke_mr/T2.nii.gz", "stroke_mr/FLAIR.nii.gz"),
    ),
    Place(
        "native_mr/patient12/study2_T1W.nii.gz",
        FIT,
        ((-23.9, -16.8, 21.7), (16.6, -15.1, 21.6)),
        ("native_mr/patient12/study2_T2W.nii.gz", "native_mr/patient12/study2_FLAIR.nii.gz"),
    ),
    Place(
        "native_mr/patient19/study2_T1W.nii.gz",
        FIT,
        ((-19.8, -12.2, 16.1), (23.3, -16.9, 14.0)),
        ("native_mr/patient19/study2_FLAIR.nii.gz",),
    ),
    Place(
        "ms_lesion_mr/patient07/T1.nii.gz",
        FIT,
        ((-26.0, -22.0, -14.0), (26.0, -22.0, -14.0)),
        ("ms_lesion_mr/patient07/T2.nii.gz", "ms_lesion_mr/patient07/FLAIR.nii.gz"),
    ),
    Place(
        "native_mr/patient01/study2_T1W.nii.gz",
        CHOOSE,
        ((-21.8, -17.8, -28.4), (21.5, -17.2, -28.5)),
        ("native_mr/patient01/study2_T2W.nii.gz", "native_mr/patient01/study2_FLAIR.nii.gz"),
    ),
    Place(
        "native_mr/patient03/study2_T1W.nii.gz",
        TEST,
        ((-10.0, -12.8, -47.1), (30.2, -15.8, -46.5)),
        ("native_mr/patient03/study2_T2W.nii.gz", "native_mr/patient03/study2_FLAIR.nii.gz"),
    ),
    Place(SAMPLE.name, TEST, ((-26.0, -22.0, -14.0), (26.0, -22.0, -14.0))),
)
"""Middles of the boxes in which `brain-structures-mr` finds them; of the two scans in MNI space those of the atlas."""


def _part(people: str, number: int) -> str:
    if people == "test":
        return TEST
    return CHOOSE if people == "validation" or number % 4 == 0 else FIT


def examples(data: Path) -> Iterator[Example]:
    """Crops of Task04, as they are and changed as scanners and people differ; other heads'; boxes elsewhere."""
    from napari_mamba.recipes.hippocampus.data import pairs, person

    for people in ("training", "validation", "test"):
        for number, (path, _) in enumerate(pairs(data / "hippocampus_mr", people)):
            part = _part(people, person(path))
            if part == FIT and number % 2:  # one side a person teaches as much as two
                continue
            for varied in (0, 1, 2) if part == FIT else (0, 1):
                yield from _of(f"{path.name} {varied}", part, "a crop of Task04", number + varied, path, varied)
    for place in PLACES:
        yield from _in_head(data, place)
    for head in heads.maps(data):
        yield from _drawn(head)
    for name in ("hippocampus_left", "hippocampus_right", "hippocampus_left_oblique"):
        path = SAMPLE.parent / f"{name}.nii.gz"
        yield Example(path.name, TEST, "the sample's crops", True, lambda path=path: io.read(path))
    yield from foreign_crops(data, (35, 50, 36), 6, near)
    yield from foreign_crops(data, (45, 60, 48), 2, near)
    yield from whole_scans(data, lambda source: source.brain)


def _of(name: str, part: str, kind: str, number: int, path: Path, varied: int) -> Iterator[Example]:
    def make() -> Volume:
        return vary(io.read(path), np.random.default_rng([varied, *path.name.encode()])) if varied else io.read(path)

    yield Example(name, part, kind, True, make)
    for how in (WRONG[number % len(WRONG)], WRONG[(number + 3) % len(WRONG)])[: 1 if varied else 2]:
        yield Example(f"{name} {how}", part, how, False, lambda how=how: changed(make(), how))


def _in_head(data: Path, place: Place) -> Iterator[Example]:
    sample = place.path == SAMPLE.name
    path = SAMPLE if sample else data / place.path
    for side, middle in enumerate(place.middles):
        for number in range(4 if place.part == TEST else 10):

            def make(path: Path = path, middle: tuple = middle, number: int = number, side: int = side) -> Volume:
                random = np.random.default_rng([number, side, *path.name.encode()])
                made = box(path, middle, random, number % 2 == 0)
                return vary(made, random) if number > 3 else made

            name = f"{place.path} {side} {number}"
            yield Example(name, place.part, "a box in the sample" if sample else "a box in a head", True, make)
            turn = number + 2 * side + len(place.path)
            for how in WRONG if place.part != TEST else [WRONG[turn % len(WRONG)]]:
                yield Example(f"{name} {how}", place.part, how, False, lambda m=make, how=how: changed(m(), how))
        for other in place.others:

            def else_(other: str = other, middle: tuple = middle, side: int = side) -> Volume:
                return box(data / other, middle, np.random.default_rng([side, *other.encode()]), True)

            yield Example(f"{other} {side} at it", place.part, "a hippocampus, T2 or FLAIR", False, else_)


def _drawn(head: heads.Head) -> Iterator[Example]:
    """Boxes of a label map drawn as T1, each changed; as T2 and FLAIR they are none of its kind."""
    for side, label in enumerate(SIDES):
        for number in range(DRAWN):
            name = f"{head.path.name} {side} {number}"

            def make(kind: str = "t1", label: int = label, seed: tuple = (number, side)) -> Volume:
                return _box_drawn(head, label, np.random.default_rng([*seed, *head.path.name.encode()]), kind)

            yield Example(name, head.part, "drawn from labels", True, make)
            for how in WRONG if head.part != TEST else [WRONG[(number + 3 * side + head.number) % len(WRONG)]]:
                yield Example(f"{name} {how}", head.part, how, False, lambda m=make, how=how: changed(m(), how))
        for number in range(DRAWN_ELSEWHERE):
            other = lambda seed=(number, side): _elsewhere(head, np.random.default_rng([*seed, head.number]))  # noqa: E731
            yield Example(f"{name} elsewhere {number}", head.part, "elsewhere in a head, T1", False, other)
        for kind in ("t2", "flair"):
            yield Example(f"{name} {kind}", head.part, "a hippocampus, T2 or FLAIR", False, lambda m=make, k=kind: m(k))


def _box_drawn(head: heads.Head, label: int, random: np.random.Generator, kind: str) -> Volume:
    middle = heads.middle_of(head, label) + random.uniform(-3, 3, 3)
    mm = np.array([random.uniform(30, 54), random.uniform(46, 66), random.uniform(32, 50)])
    return vary(heads.draw(head, random, middle, mm, float(random.uniform(0.8, 1.3)), kind), random)


def _elsewhere(head: heads.Head, random: np.random.Generator) -> Volume:
    """A box of a label map drawn as T1, 30 mm or more from the middles of both hippocampi."""
    low, high = heads.box_of(head.path, brain=True)
    while True:
        middle = random.uniform(low, high)
        if min(np.linalg.norm(middle - heads.middle_of(head, label)) for label in SIDES) > 30:
            mm = np.array([random.uniform(30, 54), random.uniform(46, 66), random.uniform(32, 50)])
            return vary(heads.draw(head, random, middle, mm, float(random.uniform(0.8, 1.3)), "t1"), random)


def box(path: Path, middle: tuple[float, float, float], random: np.random.Generator, fine: bool) -> Volume:
    """A box around a hippocampus, from a tight one to the largest that is not searched for one."""
    volume = read(path)
    voxel = np.linalg.solve(volume.affine[:3, :3], np.array(middle) + random.uniform(-3, 3, 3) - volume.affine[:3, 3])
    mm = np.array([random.uniform(30, 54), random.uniform(46, 66), random.uniform(32, 50)])
    cut = crop(volume, voxel, mm)
    return at_one_mm(cut) if fine else cut


def vary(volume: Volume, random: np.random.Generator) -> Volume:
    """A crop smoothed as an average of people, less bright in parts, noisier, or of another size."""
    values = np.asarray(volume.data[0], np.float32)
    size = np.array(values.shape)
    count = np.maximum(np.round(size * random.uniform(0.85, 1.0, 3)), 8).astype(int)
    start = np.floor(random.random(3) * (size - count + 1)).astype(int)
    if random.random() < 0.5:
        values = values[tuple(slice(a, a + n) for a, n in zip(start, count, strict=True))]
    else:  # a larger box, of which the outer part repeats what is at the border
        values = np.pad(values, [(int(random.integers(0, 6)), int(random.integers(0, 6))) for _ in range(3)], "reflect")
    if random.random() < 0.5:
        values = ndimage.gaussian_filter(values, random.uniform(0.4, 1.4))
    values = values * shading(values.shape, random) ** 0.5
    low, high = np.percentile(values, (1, 99))
    values = np.clip((values - low) / (high - low), 0, 1.3) ** np.exp(random.normal(0, 0.25))
    if random.random() < 0.4:
        values = values + random.uniform(0, 0.05) * random.standard_normal(values.shape)
    if random.random() < 0.3:  # laid out on smaller voxels, as atlases are
        finer = random.uniform(1.25, 2.0)
        values, affine = ndimage.zoom(values, finer, order=1), volume.affine @ np.diag([1 / finer] * 3 + [1])
        return Volume(values[None].astype(np.float32), affine, name=volume.name)
    return Volume(values[None].astype(np.float32), volume.affine, name=volume.name)


def near(source: Source, volume: Volume, centre: np.ndarray) -> bool:
    """Whether a hippocampus may lie within 30 mm."""
    if source.mni:
        world = volume.affine[:3, :3] @ centre + volume.affine[:3, 3]
        return bool(np.linalg.norm(MNI - world, axis=1).min() < 30)
    if not source.brain:
        return False
    world = volume.affine[:3, :3] @ (centre - np.array(volume.shape) / 2)
    return bool(abs(world[2]) < 25 or abs(world[0]) > 55)  # far above or below the middle there is none
