"""A picture of a slide to a bag of features: its patches through an encoder (Vim4Path)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.options import RunOptions, check_followed
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.run import explained
from napari_mamba.errors import BundleError, InputError
from napari_mamba.slides.bag import Bag
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.device import Device

COLOURED, SHARE = 20, 0.1
"""A pixel is of tissue where its colours differ by more (of 255); a patch, where so many of its pixels are."""
_BATCH = 16


def run_features(
    volume: Volume,
    bundle: Bundle,
    options: RunOptions | None = None,
    cancel: threading.Event | None = None,
    *,
    downsample: float = 1.0,
) -> Generator[Progress, None, Bag | None]:
    """Cut a picture into patches side by side, leave out those of the bare glass, and encode the others.

    Parameters
    ----------
    volume : Volume
        Red, green and blue (3, 1, Y, X) from 0 to 255, in memory or not: one row of patches is read at a time.
    bundle : Bundle
        Of the task "features"; its tile is a patch.
    options : RunOptions, optional
        Device, precision and `batch_size` count.
    cancel : threading.Event, optional
        Looked at between batches.
    downsample : float
        Pixels of the finest level to one of the picture: coordinates are in those.

    Yields
    ------
    Progress
        In the stage "network" a step is one row of patches.

    Returns
    -------
    Bag or None
        None where it was cancelled.

    Raises
    ------
    InputError
        If the picture is not in colour, smaller than a patch, or shows no tissue.

    Examples
    --------
    >>> bag = features_to_end(io.read("slide.tif", colour="channels"), bundle)  # doctest: +SKIP
    >>> bag.features.shape  # doctest: +SKIP
    (431, 384)
    """
    with explained(bundle):
        check_picture(volume, bundle)
        from napari_mamba.engine.device import choose_device
        from napari_mamba.engine.networks.loading import compile_scan
        from napari_mamba.engine.progress.record import Record
        from napari_mamba.engine.progress.reporting import Cancelled, Reporter

        options = options or RunOptions()
        check_followed(bundle, options)
        device = choose_device(options.device, options.precision)
        report = Reporter(Record(), cancel or threading.Event())
        encoder = _Encoder(bundle, device, options.batch_size or _BATCH)
        rows = volume.shape[1] // encoder.height
        try:
            yield from report.stage("warming up")
            encoder.load()
            compile_scan(device.torch_device)
            yield from report.follow(encoder.through(volume, rows), rows)
        except Cancelled:
            return None
        return encoder.bag(volume.name, downsample)


def features_to_end(
    volume: Volume,
    bundle: Bundle,
    options: RunOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    *,
    downsample: float = 1.0,
) -> Bag | None:
    """`run_features` without the generator: drains it, and hands each event to `on_progress`."""
    return to_end(run_features(volume, bundle, options, cancel, downsample=downsample), on_progress)


def check_picture(volume: Volume, bundle: Bundle) -> None:
    """Raise `InputError` unless the bundle is an encoder and the image a picture in colour of a patch or more."""
    if bundle.task != "features":
        raise InputError(f"{bundle.name} is for {bundle.task}, it gives no features: choose an encoder, as Vim4Path is")
    if volume.channels != len(bundle.channels) or volume.shape[0] != 1:
        raise InputError(
            f"{bundle.name} takes one picture in colour, not {volume.shape[0]} slices of {volume.channels} channels"
        )
    if any(have < side for have, side in zip(volume.shape[1:], bundle.tile.size, strict=True)):
        raise InputError(
            f"the picture has {volume.shape[1]} x {volume.shape[2]} pixels, less than a patch "
            f"({bundle.tile.size[0]} x {bundle.tile.size[1]}): take a finer level of the slide"
        )


def is_tissue(patch: np.ndarray) -> bool:
    """Whether a patch (3, Y, X) from 0 to 255 shows tissue: bare glass is grey.

    >>> is_tissue(np.full((3, 8, 8), 240))
    False
    """
    wide = patch.astype(np.float32)
    return float(np.mean(wide.max(axis=0) - wide.min(axis=0) > COLOURED)) > SHARE


class _Encoder:
    """Networks and what they made of the patches so far."""

    def __init__(self, bundle: Bundle, device: Device, batch: int) -> None:
        self.bundle, self.device, self.batch = bundle, device, batch
        self.height, self.width = bundle.tile.size
        self.networks: list[Any] = []
        self.features: list[np.ndarray] = []
        self.places: list[tuple[int, int]] = []

    def load(self) -> None:
        self.networks = [one.to(self.device.torch_device).eval() for one in self.bundle.networks()]

    def through(self, volume: Volume, rows: int) -> Iterator[None]:
        """Yields after each row of patches."""
        for row in range(rows):
            top = row * self.height
            strip = np.asarray(volume.data[:, :, top : top + self.height])[:, 0]
            lefts = range(0, strip.shape[-1] - self.width + 1, self.width)
            shown = [left for left in lefts if is_tissue(strip[..., left : left + self.width])]
            for start in range(0, len(shown), self.batch):
                self._encode(strip, top, shown[start : start + self.batch])
            yield

    def _encode(self, strip: np.ndarray, top: int, lefts: list[int]) -> None:
        import torch

        from napari_mamba.engine.preparation.prepare import prepare

        steps = self.bundle.preparation
        patches = [strip[:, None, :, left : left + self.width] for left in lefts]
        prepared = np.stack([prepare(Volume(patch), steps).data[:, 0] for patch in patches])
        tiles = torch.from_numpy(prepared).to(self.device.torch_device)
        with torch.inference_mode(), self.device.autocast():
            found = torch.stack([network(tiles).float() for network in self.networks]).mean(dim=0)
        if found.ndim != 2 or not bool(torch.isfinite(found).all()):
            raise BundleError(f"{self.bundle.name} gives no features: its weights are damaged, or it is no encoder")
        self.features.append(found.cpu().numpy())
        self.places += [(left, top) for left in lefts]

    def bag(self, name: str, downsample: float) -> Bag:
        """All of it."""
        if not self.places:
            raise InputError("the picture shows no tissue, all of it is as grey as bare glass: check its colours")
        places = np.round(np.asarray(self.places) * downsample).astype(np.int64)
        return Bag(np.concatenate(self.features), places, round(self.width * downsample), name)
