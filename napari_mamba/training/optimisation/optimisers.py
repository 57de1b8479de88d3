"""How gradients change the weights: AdamW, or Muon for the weights that mix channels and AdamW for the others.

Sources: Loshchilov and Hutter, Decoupled weight decay regularization (arXiv:1711.05101). Muon: Jordan et al., 2024
(github.com/KellerJordan/Muon), with the scale of Liu et al. (arXiv:2502.16982), which gives both one learning rate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError

KINDS = ("adamw", "muon")


class Optimiser:
    """What a training run asks of its optimisers, one or two.

    Parameters
    ----------
    network : Module
        On its device, in the memory format that it keeps.
    kind : str
        "adamw", or "muon": kernels and matrices between several channels are changed by as much in every direction of
        their space of outputs, whatever the gradient's size in it; norms, biases, depthwise kernels and the state
        matrices by AdamW.
    decay : float
        Weight decay of matrices and kernels; norms, biases, the state matrix A and the skip D have none.

    Raises
    ------
    InputError
        For another kind, or "muon" before PyTorch 2.9.

    Examples
    --------
    >>> layer = nn.Linear(4, 4)
    >>> optimiser = Optimiser(layer, "muon", 1e-4)
    >>> layer(torch.ones(1, 4)).sum().backward()
    >>> optimiser.step(rate=1e-3)
    """

    def __init__(self, network: nn.Module, kind: str = "adamw", decay: float = 1e-4) -> None:
        if kind not in KINDS:
            raise InputError(f"there is no optimiser {kind!r}; use one of {', '.join(KINDS)}")
        if kind == "muon" and not hasattr(torch.optim, "Muon"):
            raise InputError(
                f"Muon came with PyTorch 2.9, and this is {torch.__version__}: update it (the extra 'train' does)"
            )
        self.mixing = _mixing(network) if kind == "muon" else []
        self.views = [nn.Parameter(_flat(weight.detach(), weight), requires_grad=False) for weight in self.mixing]
        rest = _decay_groups(network, decay, {id(weight) for weight in self.mixing})
        on_gpu = any(parameter.is_cuda for parameter in network.parameters())
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, fused=on_gpu)]
        if self.mixing:
            from napari_mamba.training.optimisation.muon import Muon  # PyTorch 2.9's, of which it is a faster form

            self.parts.append(Muon(self.views, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        """Change the weights by their gradients, at a learning rate."""
        for weight, view in zip(self.mixing, self.views, strict=True):
            view.grad = None if weight.grad is None else _flat(weight.grad, weight)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]] | dict[str, Any]) -> None:
        """Go on from `state_dict`, or from AdamW's own; raises `InputError` for that of another kind."""
        states = [states] if isinstance(states, dict) else states  # checkpoints before there was another kind
        if len(states) != len(self.parts):
            raise InputError("the checkpoint's optimiser is another one: leave --resume out, or train on as it began")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def _flat(values: Tensor, like: Tensor) -> Tensor:
    """(outputs, others) of a weight or its gradient; a view of the weight, channels-last or not."""
    if like.is_contiguous():
        return values.flatten(1)
    return values.permute(0, *range(2, values.ndim), 1).flatten(1)


def _free(name: str, parameter: Tensor) -> bool:
    """Whether a parameter has one axis (biases, norms) or is the state matrix A or the skip D."""
    return parameter.ndim < 2 or name.endswith(("A_log", "A_logs", "Ds"))


def _mixing(network: nn.Module) -> list[nn.Parameter]:
    """Weights between several outputs and several inputs."""
    return [p for n, p in network.named_parameters() if not _free(n, p) and p.shape[0] > 1 and p.shape[1] > 1]


def _decay_groups(network: nn.Module, decay: float, without: set[int]) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels alone, of what is not in `without`."""
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in network.named_parameters():
        if id(parameter) not in without:
            groups[_free(name, parameter)].append(parameter)
    return [{"params": groups[False], "weight_decay": decay}, {"params": groups[True], "weight_decay": 0.0}]
