"""The two-layer perceptron of transformer blocks, and a gated one."""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear, activation, linear, over the last axis.

    Parameters
    ----------
    dim : int
        Channels in and out.
    hidden : int
        Channels between.
    act : type
        Activation class.
    drop : float
        Dropout after each layer.
    """

    def __init__(self, dim: int, hidden: int, act: type[nn.Module] = nn.GELU, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class GatedMlp(nn.Module):
    """Linear, one half times the activation of the other, linear, over the last axis; arguments as of `Mlp`."""

    def __init__(self, dim: int, hidden: int, act: type[nn.Module] = nn.GELU, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.act = act()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, dim=-1)
        return self.drop(self.fc2(value * self.act(gate)))
