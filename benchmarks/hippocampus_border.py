"""What the border between head and body costs `hippocampus-mr`: its answers beside the raters' coronal slice.

    python benchmarks/hippocampus_border.py --data DIR

In the labels of Task04 everything in front of one coronal slice is anterior. The table has the Dice of the answers as
they are; of their outline, cut at the slice that their own probabilities favour; of their outline, cut where the raters
did; and of the two parts as one. Validation people, one tile a volume and its mirrored copies, as `members.py` scores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from members import Mean
from scipy.special import log_softmax

from napari_mamba import bundles, training
from napari_mamba.bundles import Bundle
from napari_mamba.engine.device import Device, choose_device
from napari_mamba.training.hippocampus.recipe import CLASSES, centred
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scores import dice

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


def best_border(chances: np.ndarray) -> int:
    """The slice that splits the outline as its log-probabilities (3, Z, Y, X) favour most."""
    outline = chances.argmax(axis=0) > 0
    favour = np.where(outline, chances[ANTERIOR] - chances[POSTERIOR], 0).sum(axis=(0, 2))
    return int(np.argmin(np.concatenate([[0], np.cumsum(favour)])))  # what lies behind favours anterior least


def split(outline: np.ndarray, at: int) -> np.ndarray:
    """Labels of an outline (Z, Y, X) whose part in front of a coronal slice, and that slice, are anterior."""
    front = np.arange(outline.shape[1])[None, :, None] >= at
    return np.where(outline, np.where(front, ANTERIOR, POSTERIOR), 0)


def answers(recipe: Recipe, bundle: Bundle, device: Device) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Log-probabilities (3, Z, Y, X) and the raters' labels (Z, Y, X) of each validation volume."""
    on = device.torch_device
    network = Mean(bundle.networks(), device, bundle.tile.mirror_axes, bundle.tile.dealt).eval().to(on)
    stored = (recipe.arrays[f"validation_{key}"] for key in ("images", "labels", "shapes"))
    for image, label, shape in zip(*stored, strict=True):
        tile = torch.from_numpy(centred(image.astype(np.float32), shape))[None, None].to(on)
        with torch.inference_mode():
            logits = network(tile)[0].float().cpu().numpy()
        yield log_softmax(logits, axis=0), centred(label, shape).astype(int)


def measure(recipe: Recipe, bundle: Bundle, device: Device) -> dict[str, Any]:
    """Mean Dice (anterior, posterior) of each of `ROWS`, and how far the borders are from the raters', in slices."""
    scores: dict[str, list[tuple[float, ...]]] = {row: [] for row in ROWS}
    away = []
    for chances, truth in answers(recipe, bundle, device):
        found = chances.argmax(axis=0)
        scores["answer"].append(dice(found, truth, CLASSES))
        scores["own_slice"].append(dice(split(found > 0, best_border(chances)), truth, CLASSES))
        scores["raters_slice"].append(dice(split(found > 0, border(truth)), truth, CLASSES))
        scores["one_part"].append(dice((found > 0).astype(int), (truth > 0).astype(int), (1,)) * 2)
        away.append(best_border(chances) - border(truth))
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
    recipe = training.recipe("hippocampus-mr", asked.data)
    found = measure(recipe, bundles.load(asked.bundle), choose_device(asked.device))
    print("| answer | Dice, anterior | Dice, posterior |\n| --- | --- | --- |")
    for row, (anterior, posterior) in found["dice"].items():
        print(f"| {ROWS[row]} | {anterior:.4f} | {posterior:.4f} |")
    print(f"its border is {found['rms']:.1f} slices from the raters' (root mean square), at most {found['most']}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
