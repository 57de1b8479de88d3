"""`hippocampus-mr` in boxes of several sizes around both hippocampi, against its answer in tight crops of the head.

    python -m benchmarks.bundles.doubt.boxes --image T1.nii.gz [--mm 62 80 100 120]

There are no manual labels of a whole head here, so that the answer in tight crops (made where the largest box had the
hippocampi located, two millimetres wider on each side) stands in. The boxes lie around MNI (0, -22, -14): the image is
in MNI space, as `ms_lesion_mr/patient07/T1.nii.gz` is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from benchmarks.bundles.doubt.kinds.images import crop
from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.result import Result
from napari_mamba.training.scoring.scores import dice

MIDDLE_MNI = np.array([0.0, -22.0, -14.0])


def world_voxels(result: Result) -> dict[tuple[int, ...], int]:
    """Labels by rounded place in mm, whatever box they come from."""
    assert result.labels is not None
    labels = np.asarray(result.labels.data)[0]
    places = np.argwhere(labels) @ result.labels.affine[:3, :3].T + result.labels.affine[:3, 3]
    return dict(zip(map(tuple, np.round(places).astype(int)), labels[labels > 0].tolist(), strict=True))


def agreement(one: Result, other: Result) -> tuple[float, float]:
    """Dice of the whole and of the anterior part."""
    a, b = world_voxels(one), world_voxels(other)
    places = sorted(a.keys() | b.keys())
    first, second = (np.array([labels.get(place, 0) for place in places]) for labels in (a, b))
    whole = dice((first > 0).astype(int), (second > 0).astype(int), [1])[0]
    return float(whole), float(dice(first, second, [1])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--mm", type=float, nargs="+", default=[62, 80, 100])
    options = parser.parse_args()
    volume = io.read(options.image)
    bundle = bundles.kept(bundles.load("hippocampus-mr"))
    middle = np.linalg.solve(volume.affine[:3, :3], MIDDLE_MNI - volume.affine[:3, 3])
    cuts = {mm: crop(volume, middle, np.full(3, mm)) for mm in options.mm}
    found: dict[float, Result] = {}
    for mm, cut in cuts.items():
        found[mm] = run_to_end(cut, bundle)
        located = found[mm].provenance.get("located", {})
        print(f"{mm:g} mm: {located.get('ml')} {found[mm].warnings}", flush=True)
    largest = max(cuts)
    boxes = found[largest].provenance["located"]["boxes"]
    tight = [run_to_end(cuts[largest], bundle, RunOptions(region=tuple(wider(box)))) for box in boxes.values()]
    labels = np.maximum.reduce([np.asarray(one.labels.data) for one in tight if one.labels is not None])
    assert found[largest].labels is not None
    reference = Result(labels=found[largest].labels.with_data(labels, ("labels",)))
    for mm, result in found.items():
        print(f"{mm:g} mm against tight crops: Dice {agreement(result, reference)}", flush=True)


def wider(box: list[float], mm: float = 2.0) -> list[float]:
    """A box moved outwards by `mm` on each side."""
    return [side + (-mm if i < 3 else mm) for i, side in enumerate(box)]


if __name__ == "__main__":
    main()
