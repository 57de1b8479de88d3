"""A displacement, from two images on one grid: of everything they show at once, in mm on the fixed image's grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import Context
from napari_mamba.engine.preparation.crop_or_pad import Window
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite, Passes
from napari_mamba.errors import BundleError, InputError

_UNSUITED = ("uncertainty", "probabilities", "residual")
MOVING, FIXED = 0, 1
"""The channels of a pair."""


class DisplacementSink:
    """Takes the displacement (3, Z, Y, X) of the prepared pair, in its voxels along (z, y, x), float32."""

    def __init__(self) -> None:
        self.displacement: np.ndarray | None = None


@answers("registration")
class RegistrationAnswer(Answer):
    """`Result.image` is the moved image; "displacement" (x, y, z in RAS mm) and "jacobian" are in `Result.extra`.

    The volume has two channels on the fixed image's grid, the moving and the fixed image, as an affine brought them
    together. A tile would not see where what left it went: so there is one pass a network, over everything.
    """

    def __init__(self, context: Context):
        super().__init__(context)
        for name in _UNSUITED:
            if getattr(context.options, name):
                raise InputError(f"{context.bundle.name} registers images and gives no {name}: leave it away")

    def new_sink(self, prepared: Prepared) -> DisplacementSink:
        return DisplacementSink()

    def passes(self, data: np.ndarray, ensemble: Ensemble, sink: DisplacementSink) -> tuple[Iterator[None], int]:
        return _whole(data, self.context.plan.divisor, ensemble, sink), ensemble.passes

    def finish(self, prepared: Prepared, sink: DisplacementSink, ensemble: Ensemble) -> Events:
        from napari_mamba.registration.transforms import Transform, jacobian_determinant, resample

        yield from self.context.report.stage("restoring")
        yield from self.context.report.warn("restoring", 0, 1, self._cut(prepared))
        assert sink.displacement is not None  # a run gets here after its passes
        assert prepared.directions is not None
        volume, result = self.context.volume, self.context.result
        steps = prepared.restore_field(sink.displacement)
        world = np.einsum("wv,vzyx->wzyx", prepared.directions, steps).astype(np.float32)
        result.extra["displacement"] = volume.with_data(world, ("x in mm", "y in mm", "z in mm"))
        transform = Transform(displacement=np.moveaxis(world, 0, -1), grid=volume.affine)
        moving = volume.with_data(volume.data[MOVING : MOVING + 1], volume.channel_names[:1])
        result.image = resample(moving, volume, transform)
        result.extra["jacobian"] = volume.with_data(jacobian_determinant(transform)[np.newaxis], ("volume change",))
        yield from self.context.report.say("restoring", 1, 1)

    def _cut(self, prepared: Prepared) -> list[str]:
        """A sentence where the images reach beyond the window that the network sees."""
        if not any(isinstance(undo, Window) and undo.cuts for undo in prepared.undos):
            return []
        sides = " x ".join(f"{n * mm:.0f}" for n, mm in zip(prepared.data.shape[1:], prepared.spacing, strict=True))
        return [
            f"{self.context.bundle.name} sees {sides} mm of the images, and they reach further: outside of that they "
            "are moved as its border is. Crop both to the part of the body that matters."
        ]


def _whole(data: np.ndarray, divisor: Sequence[int], ensemble: Ensemble, sink: DisplacementSink) -> Passes:
    """One pass a network over the whole of `data` (2, Z, Y, X), in a margin of zeros; yields once a pass."""
    sides = [(n, -n % d) for n, d in zip(data.shape[1:], divisor, strict=True)]
    margin = [(more // 2, more - more // 2) for _, more in sides]
    padded = np.pad(data, [(0, 0), *margin])
    mean = yield from ensemble.mean(torch.from_numpy(padded[np.newaxis]).to(ensemble.device.torch_device))
    if mean.shape != (1, 3, *padded.shape[1:]):
        raise BundleError(
            f"the network's output has the shape {tuple(mean.shape)} and is no displacement: check the bundle"
        )
    if not bool(torch.isfinite(mean).all()):
        raise NotFinite
    inside = tuple(slice(before, before + n) for (before, _), (n, _) in zip(margin, sides, strict=True))
    sink.displacement = mean[0][(slice(None), *inside)].cpu().numpy()
