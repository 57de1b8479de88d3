"""How much work a run will be, counted before it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import RunOptions


def count(bundle: Bundle, grid: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    """Passes of a network over one batch of tiles, and the voxels of the prepared image.

    Parameters
    ----------
    bundle : Bundle
    grid : mapping
        "shape" (Z, Y, X) and "affine" (4, 4) of the image.
    options : RunOptions

    Returns
    -------
    dict
        "passes", "voxels" and "tile". An image whose preparation crops to what is not empty may be fewer.
    """
    from napari_mamba.engine import choose_device
    from napari_mamba.engine.plan import plan_run
    from napari_mamba.engine.suitability import prepared_shape

    device = choose_device(options.device, options.precision)
    plan = plan_run(bundle, options, device.torch_device)
    shape = prepared_shape(grid["shape"], grid["affine"], bundle, options)
    views: list[tuple[int, int, int]] = [shape]
    if options.axis == "all":
        views = [shape, (shape[1], shape[0], shape[2]), (shape[2], shape[0], shape[1])]
    size = 1 if bundle.task == "classification" else plan.batch_size
    batches = sum(len(list(plan.tiling(view).batches(size))) for view in views)
    copies, members = 2 ** len(plan.mirror_axes), len(bundle.weights)
    turns = max(copies, members) if bundle.tile.round_robin else copies * members
    if bundle.task == "diffusion":
        turns = int(bundle.network.arguments.get("T", 1000))
    return {"passes": batches * turns, "voxels": prod(shape), "tile": list(plan.tile)}
