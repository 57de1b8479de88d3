"""Which map to believe: deletion and insertion curves of the maps of an answer, of a tile's or of the whole image's."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import torch
from torch import Tensor

from napari_mamba.engine.progress.events import Progress
from napari_mamba.explain.makers.work import Events, Work
from napari_mamba.explain.methods.attribution import METHODS, Pick, first_output, relevance
from napari_mamba.explain.methods.faithfulness import ends_of, perturbing
from napari_mamba.explain.recorded.subject import Tile

STEPS = 5
"""Of each curve."""


def faithfulness(work: Work) -> Events:
    """The curves of relevance, gradients times input and integrated gradients, and the areas under them."""
    areas: dict[str, dict[str, float]] = {}
    shown: dict[str, dict[str, np.ndarray]] = {"deletion": {}, "insertion": {}}
    image, answer = yield from _explained(work)
    dims = work.subject.plan.spatial_dims
    ends = ends_of(answer, image, dims)
    done, total = 0, len(METHODS) * 2 * (STEPS - 1)
    for method in METHODS:

        def one(tile: Tile, pick: Pick, method: str = method) -> np.ndarray:
            return relevance(work.subject.network, tile.data, pick, method).map[0].sum(0).cpu().numpy()

        found = yield from work.summed("faithfulness", one)
        if found is None:
            return
        found = found if work.whole else found[work.tile.here].reshape(work.tile.grid)
        areas[method] = {}
        for side in shown:
            steps = perturbing(answer, image, torch.from_numpy(found), STEPS, side == "insertion", ends, dims)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    curve = end.value
                    break
                done += 1
                yield Progress("faithfulness", done, total)
                if work.cancel.is_set():
                    return
            shown[side] |= {"share": curve.shares, method: curve.kept}
            areas[method][side] = curve.area
    work.found.curves |= shown
    work.found.facts["faithfulness"] = areas


def _explained(work: Work) -> Generator[Progress, None, tuple[Tensor, Callable[[Tensor], float]]]:
    """The image (1, C, *spatial) in which voxels are taken away, and from it to the number explained."""
    subject, parts = work.subject, (yield from work.parts())

    def of_tile(image: Tensor) -> float:
        return float(parts[0][1](first_output(subject.network(image))))

    def of_all(image: Tensor) -> float:
        total = 0.0
        for tile, pick in parts:
            part = image[(slice(None), slice(None), *tile.here)].to(subject.device)
            total += float(pick(first_output(subject.network(part.reshape(tile.data.shape)))))
        return total

    answer: Callable[[Tensor], float] = of_all if work.whole else of_tile
    if not work.whole:
        return work.tile.data, answer
    padded = np.ascontiguousarray(subject.tiling.pad(subject.prepared.data))
    return torch.from_numpy(padded)[None], answer
