"""A dose, from a planning CT and structures: of the whole plan at once, in Gy, on the CT's own grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import Context
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite, Passes
from napari_mamba.errors import BundleError, InputError

_UNSUITED = ("uncertainty", "probabilities", "residual")


class DoseSink:
    """Takes the dose (Z, Y, X) of the prepared plan in units, float32."""

    def __init__(self) -> None:
        self.dose: np.ndarray | None = None


@answers("dose")
class DoseAnswer(Answer):
    """`Result.image`: Gy, never negative, zero where there can be no dose.

    The volume is a plan's channels, as `napari_mamba.radiotherapy.planning.planned` makes them. Tiles would each see a
    part of the targets, and beams cross them all: so there is one pass a network, over everything.
    """

    def __init__(self, context: Context):
        super().__init__(context)
        for name in _UNSUITED:
            if getattr(context.options, name):
                raise InputError(f"{context.bundle.name} predicts a dose and gives no {name}: leave it away")

    def new_sink(self, prepared: Prepared) -> DoseSink:
        return DoseSink()

    def passes(self, data: np.ndarray, ensemble: Ensemble, sink: DoseSink) -> tuple[Iterator[None], int]:
        return _whole(data, ensemble, sink), ensemble.passes

    def finish(self, prepared: Prepared, sink: DoseSink, ensemble: Ensemble) -> Events:
        volume, inputs = self.context.volume, self.context.bundle.planning
        assert sink.dose is not None  # a run gets here after its passes
        assert inputs is not None  # a bundle of this task has them
        yield from self.context.report.stage("restoring")
        dose = prepared.restore_values(sink.dose[np.newaxis] * np.float32(inputs.unit))
        np.maximum(dose, 0, out=dose)
        dose[:, np.asarray(volume.data[-1]) <= 0] = 0
        self.context.result.image = volume.with_data(dose, ("dose in Gy",))
        yield from self.context.report.say("restoring", 1, 1)


def _whole(data: np.ndarray, ensemble: Ensemble, sink: DoseSink) -> Passes:
    """One pass a network over the whole of `data` (C, Z, Y, X); yields once a pass."""
    plan = torch.from_numpy(data[np.newaxis]).to(ensemble.device.torch_device)
    guessed = getattr(ensemble.networks[0], "guessed", None)
    if guessed is not None and len(ensemble.networks) > 1:
        plan = guessed(plan)  # a first guess without weights, the same for all members
    mean = yield from ensemble.mean(plan)
    if mean.shape != (1, 1, *data.shape[1:]):
        raise BundleError(f"the network's output has the shape {tuple(mean.shape)} and is no dose: check the bundle")
    if not bool(torch.isfinite(mean).all()):
        raise NotFinite
    sink.dose = mean[0, 0].cpu().numpy()
