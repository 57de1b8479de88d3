"""What the benchmarks of this room run on: volumes made on the spot, and a small network."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from napari_mamba import bundles, models
from napari_mamba.io.formats.ome_zarr import metadata
from napari_mamba.volume import Volume

CHUNK = 128
TILE = 64


class _Grid:
    """The shape of a volume whose values are on disk."""

    def __init__(self, shape: Sequence[int]):
        self.shape = (1, *shape)


def volume(path: Path, shape: Sequence[int]) -> Path:
    """Bright blobs in noise, uint8, as OME-Zarr: each chunk from its own seed, so that any size is the same anew."""
    if path.exists():
        return path
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(1, *shape), chunks=(1, CHUNK, CHUNK, CHUNK), dtype="u1")
    grid = np.indices((CHUNK,) * 3, dtype=np.float32) * (2 * np.pi / CHUNK)
    blobs = 90 * (np.sin(3 * grid[0]) * np.sin(2 * grid[1]) * np.sin(4 * grid[2]) > 0.3)

    def fill(corner: tuple[int, ...]) -> None:
        noise = np.random.default_rng(corner).normal(80, 20, (CHUNK,) * 3)
        part = tuple(slice(a, min(a + CHUNK, n)) for a, n in zip(corner, shape, strict=True))
        inside = tuple(slice(0, one.stop - one.start) for one in part)
        array[(0, *part)] = np.clip(noise + blobs, 0, 255)[inside].astype(np.uint8)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, itertools.product(*(range(0, n, CHUNK) for n in shape))))
    upright = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    group.attrs.update(metadata(Volume(_Grid(shape), upright), path.stem))
    return path


def bundle(folder: Path, task: str, network: str = "umamba_bot") -> Path:
    """A small network whose weights are random: what it answers is nothing, what it costs is real.

    Parameters
    ----------
    folder : Path
        Where the bundle is put, unless it is there.
    task : str
        "segmentation" or "restoration".
    network : str
        "umamba_bot", of 8 and 16 features over cubes of 64 voxels, or "ultralight_vm_unet" as it was published, over
        slices: a quarter of the time a voxel.
    """
    path = folder / f"small-{network}-{task}"
    if path.exists():
        return path
    classes = 2 if task == "segmentation" else 1
    arguments, tile = NETWORKS[network](classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights = models.create(network, **arguments).state_dict()
    spec = bundles.BundleSpec(
        name=path.name,
        version="1.0.0",
        title="A small network",
        task=task,
        network=bundles.Network(network, arguments),
        channels=(bundles.Channel("intensity"),),
        preparation=({"step": "normalise", "schemes": ["zscore"]},),
        tile=tile,
        activation="softmax" if task == "segmentation" else "none",
        classes=tuple(bundles.LabelClass(i, f"class {i}") for i in range(classes)) if classes > 1 else (),
    )
    return bundles.save(path, spec, [weights], "# A small network\n\nFor benchmarks.\n")


def _umamba(classes: int) -> tuple[dict[str, Any], bundles.Tile]:
    arguments = {
        "spatial_dims": 3,
        "input_channels": 1,
        "num_classes": classes,
        "features_per_stage": [8, 16],
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "input_size": [TILE] * 3,
    }
    return arguments, bundles.Tile((TILE,) * 3, overlap=0.125, divisor=(2, 2, 2))


def _ultralight(classes: int) -> tuple[dict[str, Any], bundles.Tile]:
    return {"input_channels": 1, "num_classes": classes}, bundles.Tile((256, 256), overlap=0.125, divisor=(32, 32))


NETWORKS = {"umamba_bot": _umamba, "ultralight_vm_unet": _ultralight}
