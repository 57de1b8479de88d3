"""What of the input an answer rests on: relevance (MambaLRP), gradients times input, integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.rules import linearised

Pick = Callable[[Tensor], Tensor]
"""From a network's output (B, K, …) to the one number that is explained."""
METHODS = ("relevance", "gradient", "integrated")


@dataclass
class Relevance:
    """What each value of the input adds to an answer.

    `map` has the shape of what was asked about (the input, or a layer's output `at`). `answer` is the number explained;
    `sum` that of the map; `constants` the share of biases and other constants, 0 where the method has none. For the
    method "relevance" sum and constants make the answer.
    """

    map: Tensor
    answer: float
    sum: float
    constants: float
    method: str

    @property
    def missing(self) -> float:
        """What sum and constants leave of the answer, as a share of it."""
        return abs(self.answer - self.sum - self.constants) / max(abs(self.answer), 1e-12)


def relevance(
    network: nn.Module, inputs: Tensor, pick: Pick, method: str = "relevance", at: str | None = None, steps: int = 16
) -> Relevance:
    """Explain one number that a network answers by the values of its input.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    inputs : (1, C, *spatial)
    pick : callable
        From the output to the number, linear in it: a class's logit, or its mean over a region; see `picking`.
    method : {"relevance", "gradient", "integrated"}
        Layer-wise relevance propagation by MambaLRP's rules (see `rules`): one backward pass. Gradient times input.
        Integrated gradients from a black image (Sundararajan et al., arXiv:1703.01365).
    at : str, optional
        A module, whose output is explained about instead of the input. Not for "integrated".
    steps : int
        Of the integration.

    Returns
    -------
    Relevance

    Examples
    --------
    >>> network = nn.Linear(4, 2).requires_grad_(False)
    >>> found = relevance(network, torch.randn(1, 4), lambda y: y[0, 1])
    >>> found.missing < 1e-5
    True
    """
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}: choose one of {', '.join(METHODS)}")
    if at is not None and at not in dict(network.named_modules()):
        raise InputError(f"the network has no layer {at!r}: list its layers and choose one of them")
    if method == "integrated":
        return _integrated(network, inputs, pick, steps)
    frozen = [p for p in network.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        return _by_rules(network, inputs, pick, at) if method == "relevance" else _gradient(network, inputs, pick, at)
    finally:
        for p in frozen:
            p.requires_grad_(True)


def first_output(output: Tensor | Sequence[Tensor]) -> Tensor:
    """A network's answer; of deep supervision the finest."""
    return output if isinstance(output, Tensor) else output[0]


def _start(network: nn.Module, inputs: Tensor, at: str | None) -> tuple[Tensor, list[Tensor], list]:
    """What the network is given, the list that will hold what is explained about, and hooks to be removed."""
    if at is None:
        x = inputs.detach().clone().requires_grad_(True)
        return x, [x], []
    held: list[Tensor] = []

    def hook(module: nn.Module, given: tuple, output: Tensor) -> Tensor:
        held.append(output.detach().clone().requires_grad_(True))
        return held[-1]

    return inputs.detach(), held, [network.get_submodule(at).register_forward_hook(hook)]


def _by_rules(network: nn.Module, inputs: Tensor, pick: Pick, at: str | None) -> Relevance:
    x, held, hooks = _start(network, inputs, at)
    try:
        with linearised(network) as rules:
            answer = pick(first_output(network(x)))
    finally:
        for hook in hooks:
            hook.remove()
    _check_reached(answer)
    leaf = held[0]
    gradients = torch.autograd.grad(answer, [leaf, *rules.constants], allow_unused=True)
    found = leaf.detach() * (gradients[0] if gradients[0] is not None else 0)
    share = rules.share(list(gradients[1:]))
    return Relevance(found, float(answer.detach()), float(found.double().sum()), share, "relevance")


def _gradient(network: nn.Module, inputs: Tensor, pick: Pick, at: str | None) -> Relevance:
    x, held, hooks = _start(network, inputs, at)
    try:
        with torch.enable_grad():
            answer = pick(first_output(network(x)))
    finally:
        for hook in hooks:
            hook.remove()
    _check_reached(answer)
    found = held[0].detach() * torch.autograd.grad(answer, held[0])[0]
    return Relevance(found, float(answer.detach()), float(found.double().sum()), 0.0, "gradient")


def _integrated(network: nn.Module, inputs: Tensor, pick: Pick, steps: int) -> Relevance:
    total = torch.zeros_like(inputs)
    for i in range(steps):  # at the middles of equal steps
        x = (inputs.detach() * ((i + 0.5) / steps)).requires_grad_(True)
        with torch.enable_grad():
            answer = pick(first_output(network(x)))
        _check_reached(answer)
        total += torch.autograd.grad(answer, x)[0] / steps
    with torch.no_grad():
        end = pick(first_output(network(inputs)))
        start = pick(first_output(network(torch.zeros_like(inputs))))
    found = inputs * total
    return Relevance(found, float(end), float(found.double().sum()), float(start), "integrated")


def _check_reached(answer: Tensor) -> None:
    if not answer.requires_grad:
        raise InputError("this answer does not depend on the input: choose another class or region")


# ---- what is explained


def picking(
    channel: int,
    region: Tensor | np.ndarray | None = None,
    voxel: Sequence[int] | None = None,
    weights: Tensor | np.ndarray | float | None = None,
) -> Pick:
    """The function from an output to a class's logit: of an image's classes, or of a map's at a voxel or over a region.

    Parameters
    ----------
    channel : int
        The output's channel.
    region : (*spatial) bool, optional
        The mean over it is explained.
    voxel : sequence of int, optional
        Of the output's grid.
    weights : (*spatial) or float, optional
        The sum of the logits times them is explained.
    """

    def pick(output: Tensor) -> Tensor:
        if channel >= output.shape[1] or channel < 0:
            raise InputError(f"the network answers {output.shape[1]} channels, not one of number {channel}")
        one = output[0, channel]
        if weights is not None:
            return (one * torch.as_tensor(weights, device=one.device, dtype=one.dtype)).sum()
        if voxel is not None and one.ndim:
            return one[tuple(voxel)]
        if region is not None and one.ndim:
            mask = torch.as_tensor(region, device=one.device).to(one.dtype)
            if not bool(mask.any()):
                raise InputError("the region to be explained is empty here: choose another class or place")
            return (one * mask).sum() / mask.sum()
        return one.mean()

    return pick
