"""Which images are right for each bundle, and which layers of its network are listened to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.bundles.doubt.images import (
    CHANGES,
    CHOOSE,
    FIT,
    TEST,
    Example,
    Source,
    changed,
    foreign_crops,
    read,
    whole_scans,
)
from napari_mamba import io
from napari_mamba.volume import Volume

RAS = np.eye(4)[[2, 1, 0, 3]]  # (z, y, x) steps of 1 mm
HIPPOCAMPI_MNI = np.array([[26.0, -22.0, -14.0], [-26.0, -22.0, -14.0]])
ENCODER = tuple(f"encoder.stages.{stage}" for stage in range(4))


@dataclass(frozen=True)
class Kind:
    """What is looked at; `floors` are least spreads other than those of `training.scoring.familiarity`."""

    layers: tuple[str, ...]
    examples: Callable[[Path], Iterator[Example]]
    floors: Mapping[str, float] = field(default_factory=dict)


def _part(people: str, number: int) -> str:
    """Training people fit, but every fourth; with the validation people those choose the limit."""
    if people == "test":
        return TEST
    return CHOOSE if people == "validation" or number % 4 == 0 else FIT


def _with_changes(name: str, part: str, number: int, make: Callable[[], Volume], count: int = 1) -> Iterator[Example]:
    """A right image, and of people who fit nothing `count` of the changes that make it wrong, in turn."""
    yield Example(name, part, "right", True, make)
    if part != FIT:
        for how in [*CHANGES, *CHANGES][number % len(CHANGES) :][:count]:
            yield Example(f"{name} {how}", part, how, False, lambda how=how: changed(make(), how))


def hippocampus(data: Path) -> Iterator[Example]:
    """Crops of Task04; boxes of their size from other organs, and from heads away from the hippocampi."""
    from napari_mamba.recipes.hippocampus.data import pairs, person

    for people in ("training", "validation", "test"):
        for number, (image, _) in enumerate(pairs(data / "hippocampus_mr", people)):
            part = _part(people, person(image))
            if part == FIT and number % 2:  # one side a person teaches as much as two
                continue
            yield from _with_changes(image.name, part, number, lambda path=image: io.read(path))
    yield from foreign_crops(data, (35, 50, 36), 3, _near_hippocampus)
    yield from whole_scans(data, lambda source: source.brain)


def _near_hippocampus(source: Source, volume: Volume, centre: np.ndarray) -> bool:
    if source.mni:
        world = volume.affine[:3, :3] @ centre + volume.affine[:3, 3]
        return bool(np.linalg.norm(HIPPOCAMPI_MNI - world, axis=1).min() < 30)
    if not source.brain:
        return False
    world = volume.affine[:3, :3] @ (centre - np.array(volume.shape) / 2)
    return bool(abs(world[2]) < 25 or abs(world[0]) > 55)  # far above or below the middle there is none


def heart(data: Path) -> Iterator[Example]:
    """Short-axis stacks; other organs' scans, whole and in boxes of a stack's size."""
    from napari_mamba.recipes.heart import task

    files = sorted((data / "heart_mr/stacks").glob("*_image.nii.gz"))
    people = sorted({file.name.rsplit("_", 2)[0] for file in files})
    for number, file in enumerate(files):
        who = file.name.rsplit("_", 2)[0]
        part = _part(task.part(who), people.index(who))
        yield from _with_changes(file.name, part, number, lambda path=file: io.read(path), len(CHANGES))
    yield from foreign_crops(data, (80, 300, 300), 1, lambda *_: False)
    yield from whole_scans(data, lambda source: True)


def shape(data: Path) -> Iterator[Example]:
    """Masks of adrenal glands; masks of other organs, of a gland's volume in ml."""
    from napari_mamba.recipes.shape.data import glands, load

    stored = load(data / "adrenal_shapes")
    for people, name, most in (("training", "train", 160), ("validation", "val", 60), ("test", "test", 120)):
        masks, _ = glands(stored, name)
        for number, mask in enumerate(masks[:most]):
            part = _part(people, number)
            volume = Volume(np.ascontiguousarray(mask[None]).astype(np.uint8), RAS)
            yield Example(f"{name} {number}", part, "right", True, lambda v=volume: v)
    yield from _other_organs(data)


BITS = {1: "brainstem", 3: "parotid gland", 4: "parotid gland", 5: "oesophagus", 6: "larynx", 8: "target", 2: "cord"}


def _other_organs(data: Path) -> Iterator[Example]:
    for folder, part in (("train", CHOOSE), ("validation", TEST)):
        for path in sorted((data / "headneck_rt" / folder).glob("*/structures.nii.gz"))[:10]:
            for bit, organ in BITS.items():
                made = _organ(path, bit)
                if made is not None:
                    yield Example(f"{path.parent.name} {bit}", part, organ, False, lambda v=made: v)
    from napari_mamba.recipes.hippocampus.data import pairs

    for people, part in (("validation", CHOOSE), ("test", TEST)):
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


KINDS: Mapping[str, Kind] = {
    "hippocampus-mr": Kind(
        (*ENCODER, "decoder.stages.2"), hippocampus, {"its grey values": 0.15, "its sharpness": 0.8}
    ),
    "heart-mr": Kind((*ENCODER, "encoder.stages.4"), heart),
    "adrenal-shape": Kind(("layer1", "layer2", "layer3"), shape),
}
