"""Whether tumours called healthy tissue are doubted: `warn_thick` and `warn_unlike` of `brain-structures-mr`.

    python -m benchmarks.bundles.doubt.planted --data DIR
    python -m benchmarks.bundles.doubt.planted --data DIR --scans 6 [--tumour 110]

Without `--scans` the 20 label maps stand for answers: an image is drawn of each (T1, T2, FLAIR or a random contrast,
noise, shading), as it is and with a tumour (rim, core, oedema) of several sizes anywhere in a half of the brain. It is
labelled in five ways that a network may: by its grey values, as white matter, as cortex, half and half, or as if it
were not there. Prints the largest pieces of healthy brains, from which the limits come (`WIDER` times the largest of
those that fit and choose), and the share of tumours that the bundle's steps doubt. With `--scans` the network
itself answers on so many scans of people, as they are or with a tumour of so many ml in each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.bundles.doubt.kinds import heads
from benchmarks.bundles.doubt.kinds.images import TEST, read
from napari_mamba import bundles
from napari_mamba.editing.structures import Structures
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.answers import lesions
from napari_mamba.recipes.brain.bundle import POSTPROCESSING
from napari_mamba.recipes.brain.structures import MERGED, NAMES, STRUCTURES, tables
from napari_mamba.recipes.brain.synthetic import contrast
from napari_mamba.volume import Volume

SIZES, WAYS = (10, 30, 60, 110), ("grey values", "white matter", "cortex", "half and half", "not at all")
WIDER = 3.0
SIDE, DEVIATIONS = 8.0, 4.0
WHITE, CORTEX, FLUID = (2, 41), (3, 42), (4, 43)
SPACING = (2.0, 2.0, 2.0)
LOOKS = {"t1": (0.62, 0.35, 0.82), "t2": (0.7, 0.95, 0.6), "flair": (0.95, 0.5, 0.9)}
"""Rim, core and oedema beside white matter (T1) or fluid, as the contrasts of the synthesis are."""


@dataclass
class Person:
    """A label map on points 2 mm apart: `labels` as the network has them, `image`, and the means of its tissues."""

    number: int
    labels: np.ndarray
    image: np.ndarray
    kind: str
    means: np.ndarray
    shade: np.ndarray


def people(data: Path) -> Iterator[Person]:
    """The maps, each with an image."""
    table = np.arange(1001)
    table[list(MERGED)] = list(MERGED.values())
    for part in heads.MAPS.values():
        for number in part:
            path = data / f"brain_label_maps/training_seg_{number:02d}.nii.gz"
            low, high = heads.box_of(path, True)
            raw = heads._labels(path)[tuple(slice(max(a - 4, 0), b + 4, 2) for a, b in zip(low, high, strict=True))]
            labels = table[raw]
            random = np.random.default_rng(number)
            kind = contrast.KINDS[number % len(contrast.KINDS)]
            mean, deviation = contrast.draw(random, kind)
            found = np.unique(raw)
            which = tables(found)["group"][np.searchsorted(found, raw)]
            values = mean[0, which] + (deviation[0, which] + 0.02) * random.standard_normal(which.shape)
            shade = heads.shading(which.shape, random)
            image = (ndimage.gaussian_filter(values, 0.4) * shade).astype(np.float32)
            labels = np.where(np.isin(labels, list(STRUCTURES)), labels, 0).astype(np.uint8)
            yield Person(number, labels, image, kind, mean[0], shade)


def radii(
    inside: np.ndarray, sides: np.ndarray, random: np.random.Generator, ml: float, middle: np.ndarray
) -> np.ndarray:
    """Distance from a tumour's middle, uneven, as a share of where it ends when `ml` of it lie inside."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in inside.shape), indexing="ij"), -1) - middle
    uneven = ndimage.gaussian_filter(random.standard_normal(inside.shape), 8 / sides)
    far = np.sqrt(((grid * sides / random.uniform(0.8, 1.25, 3)) ** 2).sum(-1)) + 2.5 * uneven / uneven.std()
    count = int(ml * 1000 / np.prod(sides))
    last = np.partition(far[inside], min(count, inside.sum() - 1))[min(count, inside.sum() - 1)]
    return np.where(inside, far / last, np.inf)


def planted(person: Person, ml: float, way: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and image with a tumour in it."""
    random = np.random.default_rng([person.number, int(ml)])
    side = int(random.integers(2))
    mine = [index for index, name in STRUCTURES.items() if name.startswith(("left", "right")[side])]
    inside = np.isin(person.labels, [one for one in mine if "cerebell" not in STRUCTURES[one]])
    white = np.argwhere(person.labels == WHITE[side])
    far = radii(inside, np.array(SPACING), random, ml, white[random.integers(len(white))])
    core, rim, around = far < 0.55, (far >= 0.55) & (far <= 1), (far > 1) & (far < 1.3)
    image = person.image.copy()
    looks = LOOKS.get(person.kind) or tuple(random.uniform(0.1, 1, 3))
    for where, look in ((rim, looks[0]), (core, looks[1])):
        image[where] = (look * (1 + 0.05 * random.standard_normal(image.shape)) * person.shade)[where]
    image[around] = 0.5 * image[around] + 0.5 * (looks[2] * person.shade)[around]
    labels = person.labels.copy()
    tumour = core | rim
    if way == "grey values":
        means = person.means[[NAMES.index(name) for name in ("white", "cortex", "ventricle")]]
        value = ndimage.gaussian_filter(image / person.shade, 0.5)[tumour]
        nearest = np.abs(value[:, None] - means).argmin(1)
        labels[tumour] = np.array([WHITE[side], CORTEX[side], FLUID[side]])[nearest]
    elif way == "half and half":
        labels[rim], labels[core] = CORTEX[side], WHITE[side]
    elif way != "not at all":
        labels[tumour] = {"white matter": WHITE, "cortex": CORTEX}[way][side]
    return labels, image


def pieces(labels: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """Ml of the largest piece of cortex too thick, and of white matter unlike the rest of it, on points 2 mm apart."""
    thick = max(lesions.thickest(labels == label, SIDE)[0] for label in CORTEX)
    far = lesions.residuals(image, np.isin(labels, WHITE))
    return thick, max(lesions._largest(one)[0] for one in (far > DEVIATIONS, far < -DEVIATIONS))


def maps(data: Path) -> None:
    """Limits, false doubts and tumours found, of the label maps."""
    everyone = list(people(data))
    healthy = np.array([pieces(one.labels, one.image) for one in everyone])
    test = np.array([one.number in heads.MAPS[TEST] for one in everyone])
    print(f"healthy, thick and unlike, ml: fit and choose at most {healthy[~test].max(0)}, test {healthy[test].max(0)}")
    print(f"limits {WIDER} times that: {WIDER * healthy[~test].max(0)}")
    steps = [step for step in POSTPROCESSING if step["step"] in LESIONS]
    names = dict(STRUCTURES)
    false = sum(bool(said(one.labels, one.image, steps, names)) for one in everyone)
    print(f"doubted as they are: {false} of {len(everyone)}")
    print(f"| labelled as | {' | '.join(f'{ml} ml' for ml in SIZES)} |\n|{' --- |' * (len(SIZES) + 1)}")
    for way in WAYS:
        cells = []
        for ml in SIZES:
            found = [said(*planted(one, ml, way), steps, names) for one in everyone]
            cells.append(f"{sum(map(bool, found))} of {len(found)}")
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


LESIONS = ("warn_thick", "warn_unlike")


def said(labels: np.ndarray, image: np.ndarray, steps: list, names: dict[int, str]) -> list[str]:
    """What the bundle's own steps say of such an answer."""
    found: list[str] = []
    for step in steps:
        if step["step"] == "warn_thick":
            found += lesions.warn_thick(Structures(labels), SPACING, names, step["rules"])[1]
        else:
            found += lesions.warn_unlike(Structures(labels), SPACING, names, step["rules"], image)[1]
    return found


def with_tumour(volume: Volume, labels: np.ndarray, ml: float, seed: int) -> Volume:
    """A scan with a tumour in a half of its brain, as bright as other tissue of it is: `labels` are its own answer."""
    random = np.random.default_rng(seed)
    side = int(random.integers(2))
    image = np.asarray(volume.data[0], np.float32).copy()
    white, grey, fluid = (float(np.median(image[np.isin(labels, one)])) for one in (WHITE, CORTEX, FLUID))
    inside = np.isin(
        labels, [i for i, name in STRUCTURES.items() if name.startswith(("left cere", "right cere")[side])]
    )
    inside &= ~np.isin(labels, (7, 8, 46, 47))
    places = np.argwhere(labels == WHITE[side])
    sides = np.array(volume.spacing, float)
    far = radii(inside, sides, random, ml, places[random.integers(len(places))])
    noise = 1 + 0.06 * random.standard_normal(image.shape).astype(np.float32)
    around, rim, core = (far > 1) & (far < 1.3), far <= 1, far < 0.55
    image[around] = 0.5 * image[around] + 0.5 * (0.4 * grey + 0.6 * white)
    image[rim] = (0.85 * grey + 0.15 * fluid) * noise[rim]
    image[core] = (0.35 * grey + 0.65 * fluid) * noise[core]
    return volume.with_data(image[None])


def scans(data: Path, most: int, tumour: float) -> None:
    """A line each scan: what the network's own answer is doubted for."""
    bundle = bundles.kept(bundles.load("brain-structures-mr"))
    options = RunOptions(device="cpu", mirror=False, overlap=0.125)
    every = list(heads.scans(data))
    doubted = 0
    for number in np.random.default_rng(1).permutation(len(every))[:most]:
        path = every[number].path
        volume = read(path)
        result = run_to_end(volume, bundle, options)
        if tumour:
            assert result.labels is not None
            volume = with_tumour(volume, np.asarray(result.labels.data[0]), tumour, int(number))
            result = run_to_end(volume, bundle, options)
        assert result.labels is not None
        places = lesions.points(volume.shape, volume.spacing)
        labels, image = (np.asarray(one.data[0])[np.ix_(*places)] for one in (result.labels, volume))
        heard = [one for one in result.warnings if "healthy tissue" in one]
        doubted += bool(heard)
        print(f"{path.parent.name}/{path.name}: {pieces(labels, image.astype(np.float32))} {heard}", flush=True)
    print(f"{doubted} of {min(most, len(every))} doubted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=0)
    parser.add_argument("--tumour", type=float, default=0.0)
    asked = parser.parse_args()
    if asked.scans:
        scans(asked.data, asked.scans, asked.tumour)
    else:
        maps(asked.data)


if __name__ == "__main__":
    main()
