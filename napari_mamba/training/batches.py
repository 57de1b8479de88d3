"""A recipe's batches in the order of their steps, made ahead of time where a GPU would otherwise wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from napari_mamba.training.distributed import ProcessGroup
from napari_mamba.training.recipe import Recipe

PREFETCH = 4
"""Batches made ahead of their step on the CPU, each in a thread, while a GPU works."""
PREFETCH_ON_GPU = 2
"""Batches made ahead on the GPU itself, in one thread and on a stream of their own."""

Batch = tuple[Tensor, Any]


def batches(
    recipe: Recipe, first: int, last: int, device: torch.device, group: ProcessGroup
) -> Generator[Batch, None, None]:
    """This process' batches of the steps from `first` to `last`."""
    numbers = range(group.batch_number(first), group.batch_number(last), group.size)
    if device.type == "cpu":
        yield from (recipe.batch(number, device) for number in numbers)
        return
    place = device if recipe.on_device else torch.device("cpu")
    recipe.batch(group.batch_number(first), place)  # fills the recipe's caches before threads share it
    if place.type == "cuda":
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        for batch, ready in _prefetch(
            lambda number: _on_stream(recipe, number, device, stream), numbers, 1, PREFETCH_ON_GPU
        ):
            yield _received(batch, ready, device)
        return
    yield from _prefetch(lambda number: recipe.batch(number, place), numbers, PREFETCH, PREFETCH)


def _prefetch(make: Callable[[int], Any], numbers: range, threads: int, ahead: int) -> Generator[Any, None, None]:
    """`make` of each number in order, begun up to `ahead` numbers early."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(make, number) for number in numbers[:ahead])
        try:
            for place in range(len(numbers)):
                made = waiting.popleft().result()
                waiting.extend(pool.submit(make, number) for number in numbers[place + ahead : place + ahead + 1])
                yield made
        finally:
            for future in waiting:
                future.cancel()


def _on_stream(recipe: Recipe, number: int, device: torch.device, stream: Any) -> tuple[Batch, Any]:
    """A batch made on a stream beside the training's, and the event of its being ready."""
    with torch.cuda.device(device), torch.cuda.stream(stream):
        batch = recipe.batch(number, device)
        return batch, stream.record_event()


def _received(batch: Batch, ready: Any, device: torch.device) -> Batch:
    """The batch, once the training's stream may read it; its memory is not given away before that stream is done."""
    current = torch.cuda.current_stream(device)
    current.wait_event(ready)
    inputs, target = batch
    for tensor in (inputs, *((target,) if isinstance(target, Tensor) else target)):
        tensor.record_stream(current)
    return batch
