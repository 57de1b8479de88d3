"""Muon (github.com/KellerJordan/Muon, arXiv:2502.16982) in one launch a step.

PyTorch's makes some 25 small kernels of every matrix, one matrix after another. For a network's fifty that is 50 ms of
Python, nearly as long as the rest of a step of `brain-structures-mr` takes on an NVIDIA H200, which stood still
meanwhile. Here they are recorded as a CUDA graph and replayed; the arithmetic is PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from napari_mamba.training.cuda_graph import capture_graph


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` whose updates are computed together; its arguments, state and results.

    On a GPU they are recorded at the first step, and again where other parameters have gradients or a state was loaded.

    Examples
    --------
    >>> weight = nn.Parameter(torch.eye(4))
    >>> optimiser = Muon([weight], lr=0.1)
    >>> weight.grad = torch.ones(4, 4)
    >>> optimiser.step()
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, **options)
        self._recorded: _Updates | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nothing here evaluates a loss again
        """Change the parameters that have gradients."""
        (group,) = self.param_groups
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            return
        if self._recorded is None or not self._recorded.are_of(moved):
            self._recorded = _Updates(moved, self._momenta(moved), group)
        updates = self._recorded.made([parameter.grad for parameter in moved])
        rate = float(group["lr"])
        rates = [-_adjust_lr(rate, group["adjust_lr_fn"], parameter.shape) for parameter in moved]
        torch._foreach_mul_(moved, 1 - rate * group["weight_decay"])
        torch._foreach_add_(moved, torch._foreach_mul(updates, rates))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As PyTorch's; the momenta are other tensors then, so the next step records anew."""
        super().load_state_dict(state_dict)
        self._recorded = None

    def _momenta(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return [self.state[parameter]["momentum_buffer"] for parameter in parameters]


class _Updates:
    """The orthogonal updates of some parameters, from gradients copied to memory of their own."""

    def __init__(self, parameters: list[nn.Parameter], momenta: list[Tensor], group: dict[str, Any]) -> None:
        self.parameters, self.momenta, self.group = parameters, momenta, group
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]
        self.compute: Callable[[], list[Tensor]] = lambda: self._computed(self.momenta)
        if parameters[0].is_cuda:
            self.compute = self._record()

    def are_of(self, parameters: list[nn.Parameter]) -> bool:
        pairs = zip(parameters, self.parameters, strict=False)
        return len(parameters) == len(self.parameters) and all(one is other for one, other in pairs)

    def made(self, gradients: list[Any]) -> list[Tensor]:
        """Float32, one for each parameter; they are overwritten by the next call."""
        torch._foreach_copy_(self.gradients, gradients)
        return self.compute()

    def _computed(self, momenta: list[Tensor]) -> list[Tensor]:
        group, share = self.group, self.group["momentum"]
        torch._foreach_lerp_(momenta, self.gradients, 1 - share)
        ahead = torch._foreach_lerp(self.gradients, momenta, share) if group["nesterov"] else momenta
        iteration = (group["ns_coefficients"], group["ns_steps"], group["eps"])
        return [_zeropower_via_newtonschulz(one, *iteration).float() for one in ahead]

    def _record(self) -> Callable[[], list[Tensor]]:
        graph, updates = capture_graph(
            lambda: self._computed(self.momenta),
            lambda: self._computed([momentum.clone() for momentum in self.momenta]),
            torch.cuda.Stream(),
        )

        def replayed() -> list[Tensor]:
            graph.replay()
            return updates

        return replayed
