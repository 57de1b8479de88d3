"""What the two restoration recipes share: the data, the networks to choose from, and the loss."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.recipes.restore import data, task
from napari_mamba.recipes.restore.patch_sampler import PatchSampler
from napari_mamba.training.recipe import Recipe, Schedule


class Restoration(Recipe):
    """A network that answers a degraded volume with the clean one; degraded on the device, piece by piece.

    Variants: scans forwards and backwards in raster order ("mamba"), along each axis ("axis"), none ("conv"), and a
    SegResNet ("segresnet").

    `floor` is the mean squared error below which an answer is good enough: 1e-5 is 0.3% of white, the scanner's noise.
    """

    # Two halves of a piece of 96x64x32 voxels pull the weights the same way (the cosine of their gradients is 0.6, that
    # of two pieces' next to nothing): twice as many pieces of half the size are steadier, at the same cost.
    schedule = Schedule(
        steps=20_000, batch_size=16, learning_rate=1e-3, warm_up=200, validate_every=1000, optimiser="muon"
    )
    variants = ("mamba", "axis", "conv", "segresnet")
    on_device = True
    channels_last = True  # 81 instead of 95 ms for 3.3 million voxels on an NVIDIA H100: there are no norms
    tf32 = True
    use_cuda_graph = True  # 40 instead of 45 ms a step on an NVIDIA H100
    arguments = task.NETWORK
    floor = 1e-5

    def network(self) -> nn.Module:
        return task.network(self.variant, self.arguments)

    def prepare_data(self) -> dict[str, np.ndarray]:
        """See `napari_mamba.recipes.restore.data`."""
        return data.pack(self.data)

    @cached_property
    def _pieces(self) -> dict[torch.device, PatchSampler]:
        return {}

    def pieces(self, device: torch.device) -> PatchSampler:
        """The training scans on a device, copied there once."""
        if device not in self._pieces:
            self._pieces[device] = PatchSampler(data.unpack(self.arrays, "training"), device)
        return self._pieces[device]

    def random(self, step: int) -> np.random.RandomState:
        """Choices of one step that are made on the CPU: which scan, where, how turned."""
        return np.random.RandomState((self.seed + 7919 * step) % 2**32)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the samples of the logarithm of the mean squared error: PSNR, as NAFNet trains it.

        A sample with little noise then counts as much as one with much (Chen et al., arXiv:2204.04676).
        """
        return torch.log((output - target).square().flatten(1).mean(1) + self.floor).mean()


def psnr(output: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of tensors whose peak is 1."""
    return float(-10 * torch.log10((output.float() - target).square().mean() + 1e-12))


def middle(volume: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """The middle of a volume, at most `size` voxels."""
    starts = [max(n - want, 0) // 2 for n, want in zip(volume.shape, size, strict=True)]
    return volume[tuple(slice(at, at + want) for at, want in zip(starts, size, strict=True))]
