"""Bags and bundles for slides, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.slides.bag import Bag

WIDTH = 12


def made_bag(count: int = 40, width: int = WIDTH, seed: int = 0) -> Bag:
    random = np.random.default_rng(seed)
    side = int(np.ceil(count**0.5))
    cells = random.permutation(side * side)[:count]
    where = 256 * np.stack([cells % side, cells // side], axis=1)
    return Bag(random.standard_normal((count, width)).astype(np.float32), where, 256, "slide")


def slide_bundle(folder: Path, network: str, classes: tuple[str, ...], activation: str = "softmax", **arguments: Any):
    """A bundle of random weights; loaded."""
    import torch

    from napari_mamba import bundles, models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        weights = models.create(network, **arguments).state_dict()
    width = arguments.get("in_dim", arguments.get("input_dim", 1024))
    spec = bundles.BundleSpec(
        name=folder.name,
        version="1",
        title="For tests",
        task="slide",
        network=bundles.Network(network, arguments),
        channels=(bundles.Channel("features of a patch"),),
        preparation=(),
        tile=bundles.Tile((width,)),
        activation=activation,
        classes=tuple(bundles.LabelClass(n, name) for n, name in enumerate(classes)),
    )
    return bundles.load(bundles.save(folder, spec, [weights], "# tiny\n\nFor tests.\n"))


def write_hdf5(path: Path, bag: Bag, features: bool = True, **attributes: Any) -> Path:
    """As CLAM writes it."""
    import h5py

    with h5py.File(path, "w") as file:
        if features:
            file.create_dataset("features", data=bag.features, maxshape=(None, bag.features.shape[1]), chunks=True)
        if bag.coordinates is not None:
            file["coords"] = bag.coordinates
            file["coords"].attrs.update(attributes)
    return path
