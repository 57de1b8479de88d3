"""`hippocampus-mr` in boxes of 30 to 100 mm, against its answer in the crop as it is, by manual labels of test people.

    python -m benchmarks.bundles.hippocampus_boxes --data DIR [--people 27] [--mm 30 45 60 80 100]

DIR holds `hippocampus_mr` (Task04 of the Medical Segmentation Decathlon), whose people come as crops of about 35x50x35
mm: there are no whole heads of theirs. So a crop is planted into the head of the sample data, an average of people, in
the place of its own hippocampus, on the side it looks more like, its brightness fitted and its border blended over a
few millimetres; boxes of a size along every axis are cut around it, moved by up to a tenth of it. From 52 to 68 mm on,
by axis, `brain-structures-mr` has to find it first. What is found farther than 15 mm from the crop is the head's own
other hippocampus, and not counted. Around the planted crop a box shows another person, which makes it harder to find.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_mamba import bundles, io
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.preparation.axes import orient
from napari_mamba.engine.preparation.state import State
from napari_mamba.errors import InputError
from napari_mamba.recipes.hippocampus.data import pairs, person
from napari_mamba.training.scoring.scores import dice
from napari_mamba.volume import Volume

SAMPLE = Path(__file__).parents[2] / "sample_data/icbm2009a_t1.nii.gz"
PLACES = {"left": (-26.0, -22.0, -14.0), "right": (26.0, -22.0, -14.0)}
"""Middles of the sample's hippocampi in RAS mm."""
BLEND = 3.0
"""Millimetres over which a crop's border goes over into the head."""
RAS = np.eye(4)[[2, 1, 0, 3]]


def upright(path: Path) -> np.ndarray:
    """An image or labels (Z, Y, X), turned to RAS; all are of 1 mm."""
    volume = io.read(path)
    state = orient(State(np.asarray(volume.data[:1], np.float32), np.array(volume.affine[:3, :3])), "RAS")[0]
    return np.ascontiguousarray(state.data[0])


def middle_of(head: Volume, place: tuple[float, float, float]) -> np.ndarray:
    """The voxel (z, y, x) at a place in mm."""
    return np.round(np.linalg.solve(head.affine[:3, :3], np.array(place) - head.affine[:3, 3])).astype(int)


def planted(head: np.ndarray, image: np.ndarray, labels: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, ...]:
    """A head with a crop in it, the crop's labels on the head's grid, and the box (low, high) that the crop fills.

    Parameters
    ----------
    head : ndarray, shape (Z, Y, X)
    image, labels : ndarray, shape (z, y, x)
        The middle of the labels comes to lie on `middle`.
    middle : ndarray of int, shape (3,)
    """
    low = middle - np.round(np.argwhere(labels > 0).mean(0)).astype(int)
    high = low + image.shape
    if (low < 0).any() or (high > head.shape).any():
        raise InputError("the crop does not fit into the head: give a larger one")
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    one, other = np.percentile(image, (2, 98)), np.percentile(head[box], (2, 98))
    fitted = (image - one[0]) * (other[1] - other[0]) / max(one[1] - one[0], 1e-6) + other[0]
    share = np.ones(image.shape)
    for axis, n in enumerate(image.shape):
        edge = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / BLEND
        share *= np.clip(edge, 0, 1).reshape([-1 if a == axis else 1 for a in range(3)])
    made, drawn = head.copy(), np.zeros(head.shape, np.uint8)
    made[box] = share * np.clip(fitted, 0, None) + (1 - share) * head[box]
    drawn[box] = labels
    return made, drawn, low, high


def likeness(head: np.ndarray, image: np.ndarray, labels: np.ndarray, middle: np.ndarray) -> float:
    """Correlation of a crop with what it would replace."""
    low = middle - np.round(np.argwhere(labels > 0).mean(0)).astype(int)
    there = head[tuple(slice(a, a + n) for a, n in zip(low, image.shape, strict=True))]
    smooth = [ndimage.gaussian_filter(values, 1.5).ravel() for values in (image, there)]
    return float(np.corrcoef(*smooth)[0, 1])


def box_around(shape: tuple[int, ...], middle: np.ndarray, mm: float, random: np.random.Generator) -> tuple[slice, ...]:
    """A box of `mm` a side around a voxel, moved by up to a tenth of it, within the image."""
    off = np.round(random.uniform(-0.1, 0.1, 3) * mm).astype(int)
    low = np.clip(middle + off - round(mm / 2), 0, np.maximum(np.array(shape) - round(mm), 0))
    return tuple(slice(int(a), int(a + min(round(mm), n))) for a, n in zip(low, shape, strict=True))


def scored(values: np.ndarray, labels: np.ndarray, bundle: Bundle) -> tuple[float, float, list[str]]:
    """Dice of both parts of the bundle's answer to an image, and what the run said; 0 where it found no place.

    Around the hippocampus alone: the head's other one is nobody's.
    """
    try:
        result = run_to_end(Volume(values[None].astype(np.float32), RAS), bundle, RunOptions(device="auto"))
    except InputError as error:
        return 0.0, 0.0, [str(error)]
    assert result.labels is not None
    near = ndimage.binary_dilation(labels > 0, iterations=15)
    front, back = dice(np.where(near, np.asarray(result.labels.data)[0], 0), labels, [1, 2])
    return float(front), float(back), result.warnings


def main() -> None:
    """A line each person and size, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mm", type=float, nargs="+", default=[30, 45, 60, 80, 100])
    parser.add_argument("--people", type=int, default=27)
    asked = parser.parse_args()
    bundle, head = bundles.kept(bundles.load("hippocampus-mr")), io.read(SAMPLE)
    whole = upright(SAMPLE)
    state = orient(State(np.asarray(head.data[:1]), np.array(head.affine[:3, :3])), "RAS")[0]
    turned = Volume(whole[None], _placed(head, state), name="head")
    found: dict[str, list[tuple[float, float]]] = {}
    seen: set[int] = set()
    for image_path, label_path in pairs(asked.data / "hippocampus_mr", "test"):
        who = int(person(image_path))
        if who in seen or len(seen) >= asked.people:
            continue
        seen.add(who)
        image, labels = upright(image_path), np.rint(upright(label_path)).astype(np.uint8)
        middles = {side: middle_of(turned, place) for side, place in PLACES.items()}
        side = max(middles, key=lambda one: likeness(whole, image, labels, middles[one]))
        made, drawn, low, high = planted(whole, image, labels, middles[side])
        crop = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        settings = {"crop": (image, labels), "planted": (made[crop], labels)}
        random = np.random.default_rng(who)
        for mm in asked.mm:
            box = box_around(made.shape, middles[side], mm, random)
            settings[f"{mm:g} mm"] = (made[box], drawn[box])
        for name, (values, wanted) in settings.items():
            front, back, said = scored(values, wanted, bundle)
            found.setdefault(name, []).append((front, back))
            print(f"{image_path.name} {side} {name}: {front:.3f} {back:.3f} {said}", flush=True)
    print("\n| image | anterior | posterior | against the crop |\n| --- | --- | --- | --- |")
    for name, values in found.items():
        front, back = np.mean(values, 0)
        lost = float(np.mean(values) - np.mean(found["crop"]))
        print(f"| {name} | {front:.3f} | {back:.3f} | {lost:+.3f} |")
    print(f"{len(seen)} people; a box that a crop was cut by loses what lies outside of it in both")


def _placed(head: Volume, state: State) -> np.ndarray:
    """The affine of the turned head: the same world."""
    affine = np.eye(4)
    affine[:3, :3] = state.affine
    corners = np.array(np.meshgrid(*([0, n - 1] for n in head.shape), indexing="ij")).reshape(3, -1)
    affine[:3, 3] = (head.affine[:3, :3] @ corners + head.affine[:3, 3:]).min(1)
    return affine


if __name__ == "__main__":
    main()
