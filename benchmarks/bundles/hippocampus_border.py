"""What the border between head and body costs `hippocampus-mr`: its answers beside the raters' coronal slice.

    python -m benchmarks.bundles.hippocampus_border --data DIR

In the labels of Task04 everything in front of one coronal slice is anterior. The table has the Dice of the answers as
they are; of their outline, cut at the slice that their own probabilities favour; of their outline, cut where the raters
did; and of the two parts as one. Validation people, one tile a volume and its mirrored copies, as `members.py` scores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bundles.members import Mean
from napari_mamba import bundles, recipes
from napari_mamba.bundles import Bundle
from napari_mamba.engine.device import Device, choose_device
from napari_mamba.recipes.hippocampus.data import validation_tiles
from napari_mamba.recipes.hippocampus.task import CLASSES
from napari_mamba.training.scoring.scores import dice

ANTERIOR, POSTERIOR = CLASSES
ROWS = {
    "answer": "as it answers",
    "own_slice": "its outline, cut at one slice of its choice",
    "raters_slice": "its outline, cut where the raters did",
    "one_part": "both parts as one",
}


def border(labels: np.ndarray) -> int:
    """The first coronal slice of the anterior part in labels (Z, Y, X)."""
    return int(np.nonzero((labels == ANTERIOR).any(axis=(0, 2)))[0][0])


def best_border(logits: np.ndarray) -> int:
    """The slice that splits the outline as its logits (3, Z, Y, X) favour most."""
    outline = logits.argmax(axis=0) > 0
    favour = np.where(outline, logits[ANTERIOR] - logits[POSTERIOR], 0).sum(axis=(0, 2))
    return int(np.argmin(np.concatenate([[0], np.cumsum(favour)])))  # what lies behind favours anterior least


def split(outline: np.ndarray, at: int) -> np.ndarray:
    """Labels of an outline (Z, Y, X) whose part in front of a coronal slice, and that slice, are anterior."""
    front = np.arange(outline.shape[1])[None, :, None] >= at
    return np.where(outline, np.where(front, ANTERIOR, POSTERIOR), 0)


@torch.inference_mode()
def measure(arrays: dict[str, np.ndarray], bundle: Bundle, device: Device) -> dict[str, Any]:
    """Mean Dice (anterior, posterior) of each of `ROWS`, and how far the borders are from the raters', in slices."""
    on = device.torch_device
    network = Mean(bundle.networks(), device, bundle.tile.mirror_axes, bundle.tile.round_robin).eval().to(on)
    scores: dict[str, list[list[float]]] = {row: [] for row in ROWS}
    away = []
    for tile, truth in validation_tiles(arrays, on):
        logits = network(tile)[0].cpu().numpy()
        found, own, theirs = logits.argmax(axis=0), best_border(logits), border(truth)
        scores["answer"].append(dice(found, truth, CLASSES))
        scores["own_slice"].append(dice(split(found > 0, own), truth, CLASSES))
        scores["raters_slice"].append(dice(split(found > 0, theirs), truth, CLASSES))
        scores["one_part"].append(dice((found > 0).astype(int), (truth > 0).astype(int), (1,)) * 2)
        away.append(own - theirs)
    told = {row: np.nanmean(one, axis=0).tolist() for row, one in scores.items()}
    return {"dice": told, "rms": float(np.sqrt(np.mean(np.square(away)))), "most": int(np.max(np.abs(away)))}


def main() -> None:
    """A table, and the numbers as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="hippocampus-mr")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    arrays = recipes.recipe("hippocampus-mr", asked.data).arrays
    found = measure(arrays, bundles.load(asked.bundle), choose_device(asked.device))
    print("| answer | Dice, anterior | Dice, posterior |\n| --- | --- | --- |")
    for row, (anterior, posterior) in found["dice"].items():
        print(f"| {ROWS[row]} | {anterior:.4f} | {posterior:.4f} |")
    print(f"its border is {found['rms']:.1f} slices from the raters' (root mean square), at most {found['most']}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
