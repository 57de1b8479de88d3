"""Decathlon Task04 as one small file: images on the bundle's grid, labels, people, scribbles, and who is who."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.loss import UNKNOWN

BUNDLE = "brain-structures-mr"
TEST, LABELLED, UNLABELLED = 30, 20, 60


def prepare(data: Path, destination: Path) -> None:
    """Write images, labels and people of a folder with images/ and labels/ of Task04, prepared as the bundle does."""
    from napari_mamba import bundles, io
    from napari_mamba.training.adaptation.data.cases import find_cases
    from napari_mamba.training.adaptation.data.prepared import prepare_pair

    steps = bundles.load(BUNDLE).preparation
    images, labels, shapes, people = [], [], [], []
    for case in find_cases(data).cases:
        drawn = np.asarray(io.read_labels(case.label).volume.data[0], np.int16)
        image, moved = prepare_pair(io.read(list(case.image)), drawn, steps)
        images.append(image[0].astype(np.float16).ravel())
        labels.append(moved.astype(np.uint8).ravel())
        shapes.append(moved.shape)
        people.append((int(case.name.rsplit("_", 1)[1]) + 1) // 2)  # volumes 2k-1 and 2k are one person's two sides
    arrays = {"images": np.concatenate(images), "labels": np.concatenate(labels)}
    np.savez_compressed(destination, **arrays, shapes=np.array(shapes), people=np.array(people))


def groups(people: Iterable[int]) -> dict[str, list[int]]:
    """People to test on, with labels, and without, by a checksum of their numbers."""
    order = sorted(set(people), key=lambda number: zlib.crc32(f"adapting-{number}".encode()))
    ends = np.cumsum([0, TEST, LABELLED, UNLABELLED])
    return {name: order[ends[i] : ends[i + 1]] for i, name in enumerate(("test", "labelled", "unlabelled"))}


class Data:
    """What `prepare` wrote; `of` gives the images of some people."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path)
        self.people = stored["people"].tolist()
        shapes = [tuple(map(int, shape)) for shape in stored["shapes"]]
        ends = np.cumsum([0, *(np.prod(shape) for shape in shapes)]).tolist()
        parts = [slice(*pair) for pair in pairwise(ends)]
        images, labels = stored["images"].astype(np.float32), stored["labels"].astype(np.int16)
        self.images = [images[part].reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.labels = [labels[part].reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.groups = groups(self.people)

    def of(self, people: Iterable[int], labels: str = "full") -> list[Prepared]:
        """Their images with "full" labels, "none", or scribbles: "3%" of each class, or "3% alike" of the voxels."""
        wanted = set(people)
        found = []
        for number, person in enumerate(self.people):
            if person not in wanted:
                continue
            drawn = self.labels[number]
            if labels == "none":
                drawn = np.full_like(drawn, UNKNOWN)
            elif labels.startswith("3%"):
                counts = np.bincount(drawn.ravel(), minlength=3)
                alike = labels == "3% alike"
                most = [0.03 * (drawn.size / 3 if alike else count) for count in counts]
                drawn = scribble(drawn, most, np.random.default_rng(number))
            found.append(as_case(str(person), number, self.images[number], drawn))
        return found


def as_case(person: str, number: int, image: np.ndarray, drawn: np.ndarray) -> Prepared:
    """An image and its channels as adapting reads them from the disk otherwise."""
    channels = [int(channel) for channel in np.unique(drawn) if channel != UNKNOWN]
    places = {channel: np.argwhere(drawn == channel) for channel in channels}
    case = Case(f"{person}-{number}", person, (Path(f"{number}.nii.gz"),), None)
    return Prepared(case, image[None], drawn, places, bool((drawn != UNKNOWN).all()))


def scribble(labels: np.ndarray, most: Iterable[float], draw: np.random.Generator) -> np.ndarray:
    """Strokes one voxel wide inside of each class, in coronal slices; everything else is `UNKNOWN`.

    A stroke begins anywhere in the class, goes on in about the same direction, ends where it would leave the class or
    after twelve voxels, and the next one begins, until `most` voxels of the class are painted.
    """
    painted = np.full_like(labels, UNKNOWN)
    for channel, count in enumerate(most):
        inside = np.argwhere(labels == channel)
        wanted = min(round(count), len(inside))
        done = 0
        while done < wanted:
            z, y, x = inside[draw.integers(len(inside))].astype(float)
            angle = draw.uniform(0, 2 * np.pi)
            for _ in range(12):
                at = (round(z), round(y), round(x))
                within = all(0 <= i < n for i, n in zip(at, labels.shape, strict=True))
                if not within or labels[at] != channel or done == wanted:
                    break
                done += int(painted[at] == UNKNOWN)
                painted[at] = channel
                angle += draw.normal(0, 0.4)
                z, x = z + np.cos(angle), x + np.sin(angle)
    return painted
