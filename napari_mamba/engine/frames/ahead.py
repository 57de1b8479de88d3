"""The frames after a film's last one, by a network that remembers what it saw (VMRNN)."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_mamba.engine import memory
from napari_mamba.engine.device import Device, choose_device
from napari_mamba.engine.frames.preparing import prepared_frame
from napari_mamba.engine.frames.result import FilmResult
from napari_mamba.engine.frames.single import Told
from napari_mamba.engine.networks.loading import compile_scan
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.record import Record
from napari_mamba.engine.progress.reporting import Cancelled, Reporter
from napari_mamba.errors import BundleError, RunError
from napari_mamba.io.moving.film import Film

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.context import NewArray


def run_ahead(
    film: Film, bundle: Bundle, options: RunOptions, cancel: threading.Event, new_array: NewArray
) -> Generator[Progress, None, FilmResult]:
    """`run_film` of a bundle that predicts: `image` holds the frames after the last one, `times` theirs.

    One frame after the other goes through whole, each slice of a volume by itself; then every prediction is the next
    input, as in training. Beside the predictions one frame is in memory.
    """
    device, record, told = choose_device(options.device, options.precision), Record(), Told(film.count)
    report, result = Reporter(record, cancel), FilmResult()
    number = options.ahead or film.count
    memory.start_measuring(device.torch_device)
    try:
        yield from report.stage("warming up")
        networks = bundle.networks()
        if len(networks) != 1:
            raise BundleError(f"{bundle.name} has {len(networks)} networks: frames are predicted by one, take one fold")
        compile_scan(device.torch_device)
        record.start_stage("network")
        steps = _Steps(film, bundle, options, device, told, networks[0])
        yield from report.follow(steps.predict(result, number, new_array), film.count + number - 1)
    except Cancelled:
        return FilmResult()
    result.times = _times_after(film, number)
    record.facts |= {
        "device": {"type": str(device.torch_device), "name": device.name, "precision": device.precision},
        "memory": memory.peak_memory(device.torch_device),
        "predicted": number,
    }
    result.warnings = told.sentences()
    if options.ahead is not None and options.ahead > film.count:
        result.warnings.append(f"{number} frames were predicted from {film.count}: the later, the less they are worth.")
    result.provenance = record.provenance(film.frame(0), bundle, options)
    return result


class _Steps:
    """A network and what it remembers."""

    def __init__(
        self, film: Film, bundle: Bundle, options: RunOptions, device: Device, told: Told, network: torch.nn.Module
    ) -> None:
        self.film, self.bundle, self.options, self.device, self.told = film, bundle, options, device, told
        self.network: Any = network.to(device.torch_device).eval()
        self.states: list[Any] = []

    def predict(self, result: FilmResult, number: int, new_array: NewArray) -> Iterator[None]:
        """Fill `result.image`; yields after each pass."""
        after = last = None
        for t in range(self.film.count):
            last = prepared_frame(self.film, t, self.bundle, self.options, self.told)[1]
            after = self._next(torch.from_numpy(last.data.swapaxes(0, 1)).to(self.device.torch_device))
            yield
        assert after is not None  # a film has frames
        assert last is not None
        for n in range(number):
            frame = _restored(after, last)
            if result.image is None:
                result.image = new_array((number, *frame.shape), np.float32)
            result.image[n] = frame
            if n + 1 < number:
                after = self._next(after)
                yield

    @torch.inference_mode()
    def _next(self, frame: torch.Tensor) -> torch.Tensor:
        """The frame after `frame` (Z, C, Y, X), whose sides are padded to what the network divides by."""
        unit, (height, width) = self.network.unit, frame.shape[-2:]
        padded = F.pad(frame, (0, -width % unit, 0, -height % unit), mode="replicate")
        with self.device.autocast():
            after, *self.states = self.network(padded, *self.states)
        after = after.float()[..., :height, :width]
        if after.shape != frame.shape:
            raise BundleError(f"{self.bundle.name} answers a frame of another size: check bundle.json")
        if not bool(torch.isfinite(after).all()):
            raise RunError(f"{self.bundle.name} produces NaN or infinity in {self.device.precision}: choose float32")
        return after


def _restored(frame: torch.Tensor, last: Prepared) -> np.ndarray:
    """(Z, C, Y, X) as the last frame's preparation has it, on the film's grid and in its values."""
    return last.restore_image(np.ascontiguousarray(frame.cpu().numpy().swapaxes(0, 1)))


def _times_after(film: Film, number: int) -> np.ndarray | None:
    if film.times is None:
        return None
    return film.times[-1] + float(np.diff(film.times).mean()) * np.arange(1, number + 1)
