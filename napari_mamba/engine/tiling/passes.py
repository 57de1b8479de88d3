"""One pass of a network over a batch of tiles: as written, or replayed from a CUDA graph of an earlier one.

A network of many small layers keeps a fast GPU waiting: the host takes longer to ask for its kernels than the GPU to
run them. A CUDA graph is asked for once and runs them all: the same kernels on the same numbers, so the same bits. It
holds its own memory, as much as a pass takes, until it is dropped.

Source: CUDA graphs as PyTorch offers them, docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from napari_mamba.engine import memory
from napari_mamba.engine.device import Device
from napari_mamba.engine.familiarity.network_features import ChannelStatistics, Heard
from napari_mamba.scan import listening

SWITCH = "NAPARI_MAMBA_CUDA_GRAPHS"
"""The environment variable that turns graphs off (0)."""

MOST_DISTURBED = 3
"""How often a network's capture may be spoilt by another thread before its passes run as written for good."""

MOST_GRAPHS = 4  # of a network: the tiles of one image have one shape, or two
_log = logging.getLogger(__name__)


class Pass(NamedTuple):
    """What a pass gives: the network's answer, and what its layers told."""

    output: Tensor
    heard: list[Heard]


Run = Callable[[Tensor], Pass]
Graph = Any  # a callable like `Run`, with `nbytes`


def run_pass(network: nn.Module, x: Tensor, device: Device, statistics: ChannelStatistics | None = None) -> Pass:
    """One pass of `network` over x (B, C, ...) in the device's precision; the finest answer where there are several.

    On CUDA the second pass of a kind is captured, and replayed from then on; not of a network that says of itself that
    what it does depends on its input's values (`looks_at_values`): a graph cannot follow them.
    """

    def run(x: Tensor) -> Pass:
        hears: AbstractContextManager[list[Heard]] = statistics.listening() if statistics else nullcontext([])
        with hears as heard, device.autocast():
            output = network(x)
        return Pass(output[0] if isinstance(output, list | tuple) else output, heard)

    if not (x.is_cuda and wanted()) or listening.ACTIVE or getattr(network, "looks_at_values", False):
        return run(x)
    return graphs_of(network).answer(_kind(network, x, device, statistics), x, run)


def wanted() -> bool:
    """Whether passes are to be replayed from CUDA graphs."""
    return os.environ.get(SWITCH, "1") != "0"


def _kind(network: nn.Module, x: Tensor, device: Device, statistics: ChannelStatistics | None) -> tuple:
    """What a graph depends on beside its input's values: it is good for passes that agree in all of this."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    modes = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    first = next(network.parameters(), None)
    return (
        *(x.shape, x.stride(), x.dtype, x.device, device.dtype),
        None if first is None else (first.device, first.data_ptr()),  # another place: the network was moved
        None if statistics is None else statistics.layers,
        *(modes, torch.are_deterministic_algorithms_enabled()),
    )


class Pool:
    """Memory that graphs share: they run one after another, and what they give is copied before the next.

    Parameters
    ----------
    make : callable
        Gives PyTorch's name of new memory.
    """

    def __init__(self, make: Callable[[], Any] = torch.cuda.graph_pool_handle) -> None:
        self.make, self.handle = make, None
        self.users: WeakSet[Any] = WeakSet()

    def take(self) -> Any:
        """The name of what the next graph is to take: a new one where no graph has any.

        PyTorch keeps what the last graph left until memory is given back, and does not take its name again so long.
        """
        if self.handle is None or not self.users:
            self.handle = self.make()
        return self.handle


class PassGraphs:
    """The graphs of one network.

    Parameters
    ----------
    capture : callable
        ``capture(run, x, graphs)`` gives a graph of `run`, on inputs like x.
    pool : Pool
        Where their memory comes from.

    Attributes
    ----------
    failed : bool
        A pass could not be captured: this network's passes run as written from then on.
    """

    def __init__(self, capture: Callable[[Run, Tensor, Any], Graph] | None = None, pool: Pool | None = None) -> None:
        self.capture, self.pool = capture or Captured, pool or Pool()
        self.failed = False
        self._disturbed = 0
        self._kinds: dict[tuple, Graph | None] = {}  # None: one pass, as written

    def answer(self, kind: tuple, x: Tensor, run: Run) -> Pass:
        """One pass; what it gives is the caller's."""
        if self.failed:
            return run(x)
        if kind not in self._kinds:  # it also warms up what a capture must not do for the first time
            if len(self._kinds) >= MOST_GRAPHS:
                self.drop()
            self._kinds[kind] = None
            return run(x)
        graph = self._kinds[kind]
        if graph is None:
            graph = self._kinds[kind] = self._captured(x, run)
        return run(x) if graph is None else graph(x)

    def _captured(self, x: Tensor, run: Run) -> Graph | None:
        try:
            return self.capture(run, x, self)
        except Exception as error:  # memory, or an operation that a graph cannot hold: it runs as it does without
            _log.debug("no CUDA graph of this network: %s", error)
            self.drop()
            self._disturbed += 1
            self.failed = self._disturbed > MOST_DISTURBED or not _disturbed(error)
            return None

    @property
    def nbytes(self) -> int:
        """Memory that the graphs hold on the device."""
        return sum(graph.nbytes for graph in self._kinds.values() if graph is not None)

    def drop(self) -> None:
        """Let all graphs go, and with them their memory."""
        self._kinds.clear()


_GRAPHS: WeakKeyDictionary[nn.Module, PassGraphs] = WeakKeyDictionary()


def graphs_of(network: nn.Module) -> PassGraphs:
    """The graphs of a network, which go where it goes."""
    found = _GRAPHS.get(network)
    if found is None:
        found = _GRAPHS[network] = PassGraphs()
    return found


def share_memory(networks: Sequence[nn.Module]) -> None:
    """Have the graphs of an ensemble's networks share their memory; those that have graphs keep what they have."""
    pool = Pool()
    for network in networks:
        graphs = graphs_of(network)
        if not graphs.nbytes:
            graphs.pool = pool


def graph_bytes(networks: Sequence[nn.Module]) -> int:
    """Memory that the graphs of networks hold."""
    return sum(_GRAPHS[network].nbytes for network in networks if network in _GRAPHS)


def drop_graphs(networks: Sequence[nn.Module], for_good: bool = False) -> int:
    """Let the graphs of networks go; with `for_good`, where memory is short, there will be no others.

    Returns the bytes that they held.
    """
    held = graph_bytes(networks)
    for network in networks:
        graphs = graphs_of(network) if for_good else _GRAPHS.get(network)
        if graphs is not None:
            graphs.drop()
            graphs.failed = graphs.failed or for_good
    return held


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class Captured:
    """A CUDA graph of a pass.

    Parameters
    ----------
    run : callable
    x : tensor
        As the passes to come have it.
    owner : PassGraphs
    """

    def __init__(self, run: Run, x: Tensor, owner: PassGraphs) -> None:
        device, current, stream = x.device, torch.cuda.current_stream(x.device), _stream(x.device)
        self.input = x.clone()
        self.graph, handle = torch.cuda.CUDAGraph(), owner.pool.take()
        with memory.LOCK, torch.cuda.stream(stream):
            torch.cuda.empty_cache()  # what the pass before left would lie idle beside the graph's own memory
            before = torch.cuda.memory_reserved(device)
            stream.wait_stream(current)
            _prepare_cublas(device)
            collecting = gc.isenabled()
            gc.disable()  # what it would free may belong to another graph
            try:
                self.graph.capture_begin(pool=handle, capture_error_mode="thread_local")
                try:
                    self.pass_ = run(self.input)
                finally:
                    self.graph.capture_end()
            except Exception:
                _leave_capture(device)
                raise
            finally:
                if collecting:
                    gc.enable()
            current.wait_stream(stream)
            self.nbytes = max(0, torch.cuda.memory_reserved(device) - before) + self.input.nbytes
        owner.pool.users.add(self)

    def __call__(self, x: Tensor) -> Pass:
        self.input.copy_(x)
        self.graph.replay()
        output, heard = self.pass_
        # The graph's own memory is written again by the next pass.
        return Pass(output.clone(), [one._replace(values=one.values.clone()) for one in heard])


def _disturbed(error: BaseException | None) -> bool:
    """Whether a capture failed by what another thread did: waiting for the whole device ends every capture on it.

    What this thread may not do within a capture fails with words of its own, before the capture's end does.
    """
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__context__
    spoilt = any("previous error during capture" in one or "StreamCaptureInvalidated" in one for one in said)
    return spoilt and not any("not permitted" in one or "StreamCaptureUnsupported" in one for one in said)


def _leave_capture(device: torch.device) -> None:
    """Tell the device's random numbers that no capture goes on: one that failed leaves them waiting for its end.

    Every later random number of the process would fail with "Offset increment outside graph capture" (PyTorch 2.11).
    """
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())


def _prepare_cublas(device: torch.device) -> None:
    """Have cuBLAS take its memory for this stream now: taken within a capture it would be the graph's, and stay."""
    one = torch.ones(16, 16, device=device)
    torch.mm(one, one)
