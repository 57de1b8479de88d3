"""What answers look like in people: the numbers of a bundle's postprocessing, from the labels of its training people.

    python -m benchmarks.bundles.doubt.plausible hippocampus-mr --data DIR

Prints the volumes of each label (smallest, mean, largest), the largest difference of left and right, the number of
pieces, and how far the structures in `RULES` lie from each other in each person at least; and the postprocessing steps
that follow from them: ranges are widened by `WIDER` standard deviations of logarithms, distances by as many of their
own. A heart's volume varies with the beat and the disease, so that three would say nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from napari_mamba import io
from napari_mamba.engine.answers.plausibility import DIRECTIONS
from napari_mamba.volume import Volume

WIDER: Mapping[str, float] = {"hippocampus-mr": 3.0, "brain-structures-mr": 3.0, "heart-mr": 1.5}
SCATTER, MOST_DIFFERENT = 2.0, 0.7
"""How much more than people's own a network's sides may differ, and that at most."""
RULES: Mapping[str, Sequence[tuple[int, str, int]]] = {
    "hippocampus-mr": [(1, "A", 2), (2, "S", 1)],
    "brain-structures-mr": [
        (2, "L", 41), (3, "L", 42), (8, "L", 47), (17, "L", 53), (10, "L", 49), (12, "L", 51), (18, "A", 17),
        (54, "A", 53), (3, "S", 8), (42, "S", 47), (10, "S", 16), (16, "A", 8), (16, "A", 47), (16, "A", 15),
        (11, "A", 10), (50, "A", 49), (4, "S", 17), (43, "S", 53), (2, "A", 7), (41, "A", 46),
    ],
    "heart-mr": [],
}  # fmt: skip


def hippocampi(data: Path) -> Iterator[Volume]:
    from napari_mamba.recipes.hippocampus.data import pairs

    for _, label in pairs(data / "hippocampus_mr", "training"):
        yield io.read(label)


def heads(data: Path) -> Iterator[Volume]:
    from napari_mamba.recipes.brain.structures import MERGED, STRUCTURES

    for path in sorted((data / "brain_label_maps").glob("training_seg_*.nii.gz")):
        volume = io.read(path)
        labels = np.asarray(volume.data).astype(np.int32)
        table = np.arange(max(int(labels.max()), 1000) + 1)
        for raw, target in MERGED.items():
            table[raw] = target
        labels = table[labels]
        yield volume.with_data(np.where(np.isin(labels, list(STRUCTURES)), labels, 0))


def hearts(data: Path) -> Iterator[Volume]:
    """Cavities of the training people; the true voxel size of a stack is not known, so its volume is nominal."""
    from napari_mamba.recipes.heart import task

    for path in sorted((data / "heart_mr/stacks").glob("*_label.nii.gz")):
        if task.part(path.name.rsplit("_", 2)[0]) == "training":
            yield io.read(path)


PEOPLE: Mapping[str, Callable[[Path], Iterator[Volume]]] = {
    "hippocampus-mr": hippocampi,
    "brain-structures-mr": heads,
    "heart-mr": hearts,
}


def look(volume: Volume, name: str) -> dict[str, Any]:
    """What one person's labels are: ml of each, pieces of all together, and the distances of the rules in mm."""
    labels = np.asarray(volume.data)[0].astype(np.int32)
    ml = np.bincount(labels.ravel()) * float(abs(np.linalg.det(volume.affine[:3, :3]))) / 1000
    there = [int(i) for i in np.flatnonzero(ml) if i]
    ones = np.ones(labels.shape, np.uint8)
    middles = {
        i: volume.affine[:3, :3] @ np.array(middle) + volume.affine[:3, 3]
        for i, middle in zip(there, ndimage.center_of_mass(ones, labels, there), strict=True)
    }
    far = {}
    for first, direction, second in RULES[name]:
        axis, sign, _ = DIRECTIONS[direction]
        if first in middles and second in middles:
            far[(first, direction, second)] = sign * float((middles[first] - middles[second])[axis])
    return {"ml": {i: float(ml[i]) for i in there}, "pieces": _pieces(labels, ml), "far": far}


def _pieces(labels: np.ndarray, ml: np.ndarray) -> int:
    pieces, count = ndimage.label(labels > 0, np.ones((3, 3, 3), bool))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return int(np.count_nonzero(sizes > 0.02 * sizes.sum()))


def spread(values: Sequence[float], wider: float) -> tuple[float, float]:
    """The range that logarithms of positive values have, widened."""
    logs = np.log(values)
    return float(np.exp(logs.min() - wider * logs.std())), float(np.exp(logs.max() + wider * logs.std()))


def steps(name: str, seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Postprocessing steps from what was seen of people."""
    whole = [sum(one["ml"].values()) for one in seen]
    made: list[dict[str, Any]] = [{"step": "warn_volume", "ml": [_round(v) for v in spread(whole, WIDER[name])]}]
    made.append({"step": "warn_pieces", "most": max(one["pieces"] for one in seen)})
    rules = []
    for rule in RULES[name]:
        found = [one["far"][rule] for one in seen if rule in one["far"]]
        rules.append([*rule, _round(min(found) - WIDER[name] * float(np.std(found)))])
    if rules:
        made.append({"step": "warn_position", "rules": rules})
    if name == "brain-structures-mr":
        made.append({"step": "warn_sides", **sides(seen)})
    return made


def sides(seen: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest difference of left and right over people, of each pair of structures of at least 1 ml, widened."""
    from napari_mamba.recipes.brain.structures import LEFT_RIGHT, STRUCTURES

    pairs = [(left, right) for left, right in LEFT_RIGHT.items() if left in STRUCTURES and left not in (4, 5, 26, 28)]
    limits = []
    for a, b in pairs:
        there = [one["ml"] for one in seen if a in one["ml"] and b in one["ml"]]
        far = [abs(ml[a] - ml[b]) / (ml[a] + ml[b]) for ml in there]
        people = max(far) + WIDER["brain-structures-mr"] * float(np.std(far))
        limits.append(_round(min(SCATTER * people, MOST_DIFFERENT)))
    return {"pairs": [label for pair in pairs for label in pair], "difference": limits, "smallest": 1.0}


def _round(value: float) -> float:
    return float(f"{value:.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", choices=tuple(PEOPLE))
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    seen = [look(volume, options.bundle) for volume in PEOPLE[options.bundle](options.data)]
    for index in sorted({i for one in seen for i in one["ml"]}):
        ml = [one["ml"][index] for one in seen if index in one["ml"]]
        print(f"label {index}: {min(ml):.2f} {np.mean(ml):.2f} {max(ml):.2f} ml, in {len(ml)} of {len(seen)}")
    whole = [sum(one["ml"].values()) for one in seen]
    print(f"all: {min(whole):.2f} {np.mean(whole):.2f} {max(whole):.2f} ml")
    for rule in RULES[options.bundle]:
        far = [one["far"][rule] for one in seen if rule in one["far"]]
        print(f"{rule}: {min(far):.1f} {np.mean(far):.1f} {max(far):.1f} mm")
    print(json.dumps(steps(options.bundle, seen), indent=2))


if __name__ == "__main__":
    main()
