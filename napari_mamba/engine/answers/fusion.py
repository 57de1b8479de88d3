"""Two registered images as one, on their grid: the fused image, from 0 to 1."""

from __future__ import annotations

import numpy as np

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.image import ImageSink
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import Context
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.errors import BundleError, InputError

_UNSUITED = ("uncertainty", "probabilities", "residual")


@answers("fusion")
class FusionAnswer(Answer):
    """`Result.image`: what the network made of both images, from 0 to 1; it has the scale of neither.

    Runs go slice by slice or tile by tile, as any; a 2D network goes through a volume.
    """

    def __init__(self, context: Context):
        super().__init__(context)
        for name in _UNSUITED:
            if getattr(context.options, name):
                raise InputError(f"{context.bundle.name} fuses two images and gives no {name}: leave it away")
        if context.options.strength != 1:
            raise InputError(f"{context.bundle.name} fuses two images, which has no strength: leave it away")

    def new_sink(self, prepared: Prepared) -> ImageSink:
        return ImageSink(prepared.data.shape[1:], self._no_factor, self.context.new_array)  # type: ignore[arg-type]

    def _no_factor(self) -> None:
        raise BundleError(f"{self.context.bundle.name} answers on a finer grid, which no fusion does: check the bundle")

    def finish(self, prepared: Prepared, sink: ImageSink, ensemble: Ensemble) -> Events:
        yield from self.context.report.stage("restoring")
        if len(sink.image) != 1 and 2 * len(sink.image) != self.context.volume.channels:
            raise BundleError(f"the network answers {len(sink.image)} channels for two images: check the bundle")
        volume = self.context.volume
        fused = prepared.restore_values(np.clip(sink.image, 0, 1))
        names = ("fused",) if len(fused) == 1 else ()
        self.context.result.image = volume.with_data(fused, names)
        yield from self.context.report.say("restoring", 1, 1)
