"""A run inside a box: the network sees the block around it, and the answer comes back on the whole grid."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.result import Result, class_table, region_table, voxel_ml
from napari_mamba.errors import InputError
from napari_mamba.io.regions import Region, region_of
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def events_within(
    volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event | None, **stored: Any
) -> Generator[Progress, None, Result]:
    """The run of `napari_mamba.engine.run`, of the voxels in `options.region` alone.

    Outside of the box labels are background, probabilities those of background (of no class where classes overlap),
    uncertainty, residual, fused and sampled images 0, and a restored image is the input. A bundle that answers on a
    finer grid (super-resolution) gives the block alone, at its place. A classification looks at the block.
    """
    from napari_mamba.engine.session import Session

    assert options.region is not None
    if bundle.task == "dose":
        raise InputError(f"{bundle.name} needs the whole plan, whose beams cross a box: leave the region away")
    if bundle.task == "registration":
        raise InputError(f"{bundle.name} moves whole images onto each other: leave the region away")
    region = region_of(volume, options.region)
    session = Session(region.cut(), bundle, replace(options, region=None), cancel, **stored)
    result = yield from session.events()
    result.provenance["options"] = options.to_dict()
    result.provenance["input"] |= {"shape": list(volume.data.shape), "affine": volume.affine.tolist()}
    result.provenance["region"] = {"box": list(options.region), "block": [[s.start, s.stop] for s in region.block]}
    if not result.cancelled:
        _put_back(result, region, bundle, np.asarray(session.context.volume.data))
    return result


def _put_back(result: Result, region: Region, bundle: Bundle, image: np.ndarray) -> None:
    """Bring every volume of `result` onto the whole grid, and measure again on `image`, the block's, what is left."""
    if result.image is not None:
        if result.image.shape != region.inside.shape:  # on a finer grid: the block alone
            return
        given: np.ndarray | float = 0.0  # a fused or sampled image has the scale of none that went in
        if bundle.task == "restoration":
            given = np.asarray(region.whole.data, np.float32)[: result.image.channels]
        result.image = region.put_back(result.image, given)
    for name, answer in result.extra.items():
        result.extra[name] = region.put_back(answer, _outside(name, bundle, answer.channels))
    if result.labels is not None:
        result.labels = region.put_back(result.labels)
        ml = voxel_ml(region.whole)
        if "regions" in result.extra:
            blocks = np.asarray(result.extra["regions"].data)[(slice(None), *region.block)].astype(bool)
            result.table = region_table(blocks, image, bundle.classes, ml)
        else:
            labels = np.asarray(result.labels.data)[(0, *region.block)]
            result.table = class_table(labels, image, bundle.classes, ml)


def _outside(name: str, bundle: Bundle, channels: int) -> np.ndarray | float:
    """What an extra volume holds where nothing was computed: surely background, or nothing."""
    if name != "probabilities" or bundle.activation == "sigmoid":
        return 0.0
    return np.array([1.0] + [0.0] * (channels - 1))
