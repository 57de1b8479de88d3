"""A restored image, on the input's grid or a finer one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import NewArray
from napari_mamba.engine.memory import host_array
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.enlarging import check_enlargeable, enlarged_affine, interpolated, restored_factors
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.engine.tiling.tiles import times
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume


class ImageSink:
    """Takes an image slice by slice, float32.

    Parameters
    ----------
    shape : tuple of int
        Of the prepared image.
    check_factors : callable
        Called before the image is enlarged; raises where that cannot be.
    new_array : callable
        Makes what the slices are written into: see `napari_mamba.engine.context.NewArray`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        check_factors: Callable[[], None] = lambda: None,
        new_array: NewArray = host_array,
    ):
        self.shape = shape
        self.check_factors = check_factors
        self.new_array = new_array
        self.factors: tuple[int, int, int] = (1, 1, 1)
        self.image: Any = None

    def enlarge(self, factors: tuple[int, int, int]) -> None:
        """Take so many voxels for each of the prepared image's, from the first slice on."""
        if factors != self.factors:
            self.check_factors()
        self.factors, self.shape = factors, times(self.shape, factors)

    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (C, n, Y, X) of the slices from z on."""
        if self.image is None:
            self.image = self.new_array((len(values), *self.shape), np.float32)
        self.image[:, z : z + values.shape[1]] = values.cpu().numpy()


@answers("restoration")
class ImageAnswer(Answer):
    """`Result.image`, and where asked for the residual and the spread over mirrored copies as "uncertainty"."""

    @property
    def wants_spread(self) -> bool:  # type: ignore[override]
        return self.context.options.uncertainty

    def new_sink(self, prepared: Prepared) -> ImageSink:
        return ImageSink(prepared.data.shape[1:], partial(check_enlargeable, prepared), self.context.new_array)  # type: ignore[arg-type]

    def finish(self, prepared: Prepared, sink: ImageSink, ensemble: Ensemble) -> Events:
        context = self.context
        yield from context.report.stage("restoring")
        image, spread = self._restored(prepared, sink, ensemble.return_std)
        data = context.volume.data if not prepared.upsampled else prepared.restore_image(prepared.data)
        data, affine = data[: len(image)], prepared.restored_affine(context.volume.affine)
        if sink.factors != (1, 1, 1):
            factors = restored_factors(image, data.shape[1:])
            affine = enlarged_affine(affine, factors)
            asked = context.options.residual or context.options.strength != 1
            data = interpolated(data, factors) if asked else data
        image, spread = _at_strength(image, data, spread, context.options.strength)
        if context.options.clip:
            for restored, given in zip(image, context.volume.data, strict=True):
                np.clip(restored, given.min(), given.max(), out=restored)
        self._keep(replace(context.volume, data=image, affine=affine), data, spread)
        yield from context.report.say("restoring", 1, 1)

    def _restored(self, prepared: Prepared, sink: ImageSink, with_spread: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """The image (C, Z, Y, X) in the input's intensity scale, and the spread of it where the passes gave one."""
        answer, spread = sink.image, None
        if with_spread:
            answer, spread = np.split(np.asarray(sink.image), 2)
            spread = prepared.restore_image(answer + spread)  # less the image, below: in its units
        image = np.asarray(prepared.restore_image(answer), np.float32)
        spread = None if spread is None else spread - image
        image = prepared.data_consistency(image)
        channels = self.context.volume.channels
        if channels == 1 < len(self.context.bundle.channels):  # repeated on the way in
            image = image.mean(axis=0, keepdims=True)
        if len(image) != channels:
            raise BundleError(f"the network answers {len(image)} channels for {channels}: a restored image has as many")
        return image, spread

    def _keep(self, grid: Volume, given: np.ndarray, spread: np.ndarray | None) -> None:
        result, names = self.context.result, self.context.volume.channel_names
        result.image = grid.with_data(grid.data, names)
        if self.context.options.residual:
            result.extra["residual"] = grid.with_data(given.astype(np.float32) - grid.data, names)
        if spread is not None:
            mean = spread.mean(axis=0, keepdims=True)
            result.extra["uncertainty"] = grid.with_data(np.maximum(mean, 0, out=mean), ("uncertainty",))


def _at_strength(
    image: np.ndarray, given: np.ndarray, spread: np.ndarray | None, strength: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """What was given with a share of the change made, in place, and the share of the spread."""
    if strength == 1:
        return image, spread
    for restored, before in zip(image, given, strict=True):
        restored -= before
        restored *= strength
        restored += before
    return image, None if spread is None else spread * strength
