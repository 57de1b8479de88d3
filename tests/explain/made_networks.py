"""Networks, and scans' arguments, that several tests look into."""

import torch
import torch.nn.functional as F
from torch import nn

from napari_mamba import models
from napari_mamba.explain.recorded.recording import SelectivePath


class OnMaps(nn.Module):
    """A mixer on the cells of an image, in raster order."""

    def __init__(self, mixer):
        super().__init__()
        self.mix = mixer

    def forward(self, x):
        return self.mix(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


class Pair(nn.Module):
    """A network of two images (registration) as one of an image of two channels."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        answer = self.network(x[:, :1], x[:, 1:])
        return answer if isinstance(answer, torch.Tensor) else answer[0]


def given(case):
    """A network with one input, and that input."""
    network, inputs = built(case), case.inputs()
    return (Pair(network), torch.cat(inputs, 1)) if case.more else (network, inputs[0][:1])


def built(case):
    torch.manual_seed(0)
    network = models.create(case.name, **case.arguments).eval()
    for module in network.modules():  # biases that are not zero, as trained ones are not
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias") and parameter.ndim == 1 and not isinstance(module, nn.Embedding):
                nn.init.normal_(parameter, std=0.05)
    return network


def made(length=50, width=20, states=5, groups=1, seed=0):
    torch.manual_seed(seed)
    delta = F.softplus(torch.randn(length, width) - 2)
    A = -torch.rand(width, states) - 0.1
    B, C = torch.randn(length, groups, states), torch.randn(length, groups, states)
    table = torch.randperm(length)
    return SelectivePath(0, table, torch.arange(length), torch.randn(length, width), None, delta, A, B, C)
