"""Networks of several images at once, as networks of their channels: what the passes over tiles call."""

from __future__ import annotations

from torch import Tensor, nn


class OfPair(nn.Module):
    """A network of two images: (B, 2 C, ...), the channels of the second after the first's, to its answer.

    Examples
    --------
    >>> import torch
    >>> class Less(nn.Module):
    ...     def forward(self, a, b):
    ...         return a - b
    >>> OfPair(Less())(torch.tensor([[[[3.0]], [[1.0]]]])).item()
    2.0
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(*x.chunk(2, dim=1))


class DisplacementOfPair(nn.Module):
    """A network that moves the first of two images onto the second: (B, 2, ...) to the displacement, (B, 3, ...).

    MambaMorph and its kin answer the moved image, what they made of the two, and last the displacement in voxels along
    the image's axes, which says where in the moving image each voxel of the fixed one is seen.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(*x.chunk(2, dim=1))[-1].float()


class OfClip(nn.Module):
    """A network of a clip: (B, F C, ...), the channels of each frame after the other, to (B, F K, ...)."""

    def __init__(self, network: nn.Module, frames: int) -> None:
        super().__init__()
        self.network, self.frames = network, frames

    def forward(self, x: Tensor) -> Tensor:
        answer = self.network(x.unflatten(1, (self.frames, -1)))
        if isinstance(answer, list | tuple):  # edges come second
            answer = answer[0]
        return answer.unflatten(0, (len(x), self.frames)).flatten(1, 2)
