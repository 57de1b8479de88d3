"""An image that a diffusion samples, given the channels of each slice: the doses of MD-Dose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import Context
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite, Passes
from napari_mamba.errors import BundleError, InputError
from napari_mamba.models.diffusion.sampling import Schedule, first_noise, sample

_UNSUITED = ("uncertainty", "probabilities", "residual")


class SampleSink:
    """Takes the samples of slices (C, Y, X), float32."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.image: Any = None

    def __call__(self, z: int, values: np.ndarray) -> None:
        """Take the samples (n, C, Y, X) of the slices from z on."""
        if self.image is None:
            self.image = np.zeros((values.shape[1], *self.shape), np.float32)
        self.image[:, z : z + len(values)] = values.swapaxes(0, 1)


@answers("diffusion")
class DiffusionAnswer(Answer):
    """`Result.image`: one sample a slice, from 0 to 1 as in training; another seed gives another sample.

    Each step of the sampler is a pass, after which a run reports and can be cancelled. A slice has its own noise, so
    that neither the batch size nor the other slices change it. Several networks' noises are averaged.
    """

    def __init__(self, context: Context):
        super().__init__(context)
        for name in _UNSUITED:
            if getattr(context.options, name):
                raise InputError(f"{context.bundle.name} samples an image and gives no {name}: leave it away")
        if context.options.axis == "all":
            raise InputError(f"{context.bundle.name} samples slices, whose mean is no sample: choose one axis")

    def new_sink(self, prepared: Prepared) -> SampleSink:
        return SampleSink(prepared.data.shape[1:])

    def passes(self, data: np.ndarray, ensemble: Ensemble, sink: SampleSink) -> tuple[Iterator[None], int]:
        first: Any = ensemble.networks[0]
        size = self.context.plan.batch_size
        if not hasattr(first, "noise_in"):
            raise BundleError(f"the network of {self.context.bundle.name} takes no noise off: check the bundle's task")
        batches = [range(z, min(z + size, data.shape[1])) for z in range(0, data.shape[1], size)]
        schedule = Schedule(T=first.steps)
        return self._sampled(data, batches, ensemble, schedule, sink), len(batches) * schedule.T

    def _sampled(
        self, data: np.ndarray, batches: list[range], ensemble: Ensemble, schedule: Schedule, sink: SampleSink
    ) -> Passes:
        device = ensemble.device
        channels: Any = ensemble.networks[0].out_channels
        for batch in batches:
            condition = torch.from_numpy(np.ascontiguousarray(data[:, batch.start : batch.stop].swapaxes(0, 1)))
            condition = condition.to(device.torch_device)
            noise = [torch.Generator().manual_seed(self.context.options.seed + (z << 31)) for z in batch]
            start = torch.cat([first_noise((1, channels, *data.shape[2:]), one) for one in noise])

            def denoise(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor = condition) -> torch.Tensor:
                with device.autocast():
                    found = [network.noise_in(x, condition, t) for network in ensemble.networks]  # type: ignore[operator]
                return torch.stack(found).mean(dim=0).float()

            image = start
            for step in sample(denoise, start.to(device.torch_device), schedule, generator=noise):
                image = step.image
                yield
            if not bool(torch.isfinite(image).all()):
                raise NotFinite
            sink(batch.start, image.float().cpu().numpy())

    def finish(self, prepared: Prepared, sink: SampleSink, ensemble: Ensemble) -> Events:
        yield from self.context.report.stage("restoring")
        image = prepared.restore_values(sink.image)
        self.context.result.image = self.context.volume.with_data(image, ("sample",) if len(image) == 1 else ())
        yield from self.context.report.say("restoring", 1, 1)
