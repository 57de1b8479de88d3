"""A training step's kernels as a CUDA graph: recorded once for each shape of the samples, then replayed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.scan import listening

WARM_UP = 3
"""Runs before a recording: kernels are compiled, convolutions tried out, tables copied and workspaces made."""


def capture_graph(work: Callable[[], Any], warm_up: Callable[[], Any], stream: Any) -> tuple[Any, Any]:
    """A CUDA graph of `work` and what it answers, which every replay overwrites.

    Parameters
    ----------
    work : callable
        What is recorded; it reads its inputs from memory that stays.
    warm_up : callable
        The same without lasting effects, run beforehand.
    stream : torch.cuda.Stream
        What both run on.
    """
    current = torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            warm_up()
        graph = torch.cuda.CUDAGraph()
        # The next batches are made in another thread, which may allocate memory meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            answer = work()
    current.wait_stream(stream)
    return graph, answer


class CudaGraphStep:
    """Replay a function that leaves parameters with gradients.

    Parameters
    ----------
    gradients : callable
        Takes inputs and a target (a tensor, or several) on a GPU, sets the parameters' gradients anew and returns the
        loss. Whatever else it does in Python is done while it is recorded alone.
    parameters : sequence of Parameter
    """

    def __init__(self, gradients: Callable[[Tensor, Any], Tensor], parameters: Sequence[nn.Parameter]) -> None:
        self.gradients, self.parameters = gradients, parameters
        self.recordings: dict[Hashable, _CapturedGraph] = {}
        self.stream: Any = None  # one for all recordings: autograd remembers where parameters got their gradients

    def __call__(self, inputs: Tensor, target: Any) -> Tensor:
        """The loss of these samples, whose gradients the parameters then have."""
        if listening.ACTIVE:  # a replay would run past the listeners
            return self.gradients(inputs, target)
        given = (inputs, *([target] if isinstance(target, Tensor) else target))
        key = tuple((t.shape, t.stride(), t.dtype) for t in given)
        if key not in self.recordings:
            self.recordings[key] = _CapturedGraph(self, inputs, target)
        return self.recordings[key].replay(given)


class _CapturedGraph:
    """The graph of one shape of samples, the memory it reads them from, and the gradients it writes."""

    def __init__(self, of: CudaGraphStep, inputs: Tensor, target: Any) -> None:
        self.parameters = of.parameters
        own = inputs.clone()
        own_target = target.clone() if isinstance(target, Tensor) else tuple(t.clone() for t in target)
        self.given = (own, *([own_target] if isinstance(own_target, Tensor) else own_target))
        of.stream = of.stream or torch.cuda.Stream()

        def warm_up() -> None:
            of.gradients(own, own_target)
            for parameter in self.parameters:
                parameter.grad = None  # those of another recording are not to be added to

        self.graph, self.loss = capture_graph(lambda: of.gradients(own, own_target), warm_up, of.stream)
        self.written = [parameter.grad for parameter in self.parameters]

    def replay(self, given: Sequence[Tensor]) -> Tensor:
        for own, new in zip(self.given, given, strict=True):
            own.copy_(new)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.written, strict=True):
            parameter.grad = gradient
        return self.loss.clone()
