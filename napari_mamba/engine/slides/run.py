"""The run of a slide: one generator from a bag of features to its scores, for every front end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.options import RunOptions, check_followed
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.run import explained
from napari_mamba.engine.slides.result import SlideResult
from napari_mamba.errors import InputError, RunError
from napari_mamba.slides.bag import Bag, check_bag
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    import torch

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.device import Device

FEW = 16
"""Patches below which a slide is hardly one."""


def run_slide(
    bag: Bag, bundle: Bundle, options: RunOptions | None = None, cancel: threading.Event | None = None
) -> Generator[Progress, None, SlideResult]:
    """Score a slide by its patches' features, and weigh each patch.

    The bag goes through whole, as its networks were trained; several networks of a bundle are averaged.

    Parameters
    ----------
    bag : Bag
        From `napari_mamba.slides.files.read`.
    bundle : Bundle
        Of the task "slide".
    options : RunOptions, optional
        Its device and precision count.
    cancel : threading.Event, optional
        Looked at between the networks.

    Yields
    ------
    Progress

    Returns
    -------
    SlideResult

    Raises
    ------
    InputError
        If the bundle is not for slides, the bag is empty, or its features are of another encoder.

    Examples
    --------
    >>> for progress in run_slide(read("slide.h5"), bundle):  # doctest: +SKIP
    ...     print(progress.stage)
    """
    with explained(bundle):
        check_slide(bag, bundle)
        from napari_mamba.engine import memory
        from napari_mamba.engine.device import choose_device
        from napari_mamba.engine.progress.record import Record
        from napari_mamba.engine.progress.reporting import Cancelled, Reporter

        options, record = options or RunOptions(), Record()
        check_followed(bundle, options)
        device = choose_device(options.device, options.precision)
        report = Reporter(record, cancel or threading.Event())
        memory.start_measuring(device.torch_device)
        result = SlideResult()
        try:
            yield from report.stage("checking")
            yield from report.warn("checking", 1, 1, _doubts(bag))
            yield from report.stage("warming up")
            networks = bundle.networks()
            record.start_stage("network")
            found: list[tuple[Any, Any]] = []
            yield from report.follow(_passes(networks, bag, device, found), len(networks))
            result = _averaged(found, bundle)
        except Cancelled:
            result = SlideResult()
        record.facts |= {
            "device": {"type": str(device.torch_device), "name": device.name, "precision": device.precision},
            "memory": memory.peak_memory(device.torch_device),
            "patches": len(bag),
        }
        result.provenance = record.provenance(_as_input(bag), bundle, options)
        result.warnings = list(record.warnings)
        return result


def slide_to_end(
    bag: Bag,
    bundle: Bundle,
    options: RunOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> SlideResult:
    """`run_slide` without the generator: drains it, and hands each event to `on_progress`."""
    return to_end(run_slide(bag, bundle, options, cancel), on_progress)


def check_slide(bag: Bag, bundle: Bundle) -> None:
    """Raise `InputError` where a bundle is not for slides, or its features are not those of the bag."""
    if bundle.task != "slide":
        raise InputError(f"{bundle.name} takes images, not a slide's bag of features: choose a bundle for slides")
    check_bag(bag)
    width = bundle.tile.size[0]
    if bag.features.shape[1] != width:
        raise InputError(
            f"{bundle.name} takes {width} features a patch, and {bag.name or 'this bag'} has "
            f"{bag.features.shape[1]}: give the features of the encoder that it was trained with"
        )


def _doubts(bag: Bag) -> list[str]:
    doubts = []
    if len(bag) < FEW:
        doubts.append(f"The bag has {len(bag)} patches, few for a slide: look at its tissue mask.")
    if bag.coordinates is not None and len(np.unique(bag.coordinates, axis=0)) < len(bag):
        doubts.append("Some patches lie at the same place: the file may hold them twice.")
    return doubts


def _passes(
    networks: list[torch.nn.Module], bag: Bag, device: Device, found: list[tuple[Any, Any]]
) -> Generator[None, None, None]:
    import torch

    where = None if bag.coordinates is None else torch.from_numpy(np.asarray(bag.coordinates, np.int64))
    features = torch.from_numpy(np.ascontiguousarray(bag.features, dtype=np.float32)).to(device.torch_device)
    for network in networks:
        placed: Any = network.to(device.torch_device)
        with torch.inference_mode(), device.autocast():
            logits, share = placed.slide(features, where)
        network.to("cpu")
        found.append((logits.float().cpu(), share.float().cpu()))
        yield


def _averaged(found: list[tuple[Any, Any]], bundle: Bundle) -> SlideResult:
    """The networks' mean: logits before the activation, attention as it is."""
    import torch

    from napari_mamba.engine.tiling.infer import probabilities_of

    logits, share = (torch.stack(parts).mean(0) for parts in zip(*found, strict=True))
    if not bool(torch.isfinite(logits).all()) or not bool(torch.isfinite(share).all()):
        raise RunError(f"{bundle.name} produces NaN or infinity: choose the precision float32")
    values = probabilities_of(logits[None], bundle.activation)[0].double()
    scores = dict(zip([c.name for c in bundle.classes], values.tolist(), strict=True))
    lasting = torch.cumprod(1 - values, 0).tolist() if bundle.network.arguments.get("survival") else []
    return SlideResult(scores, lasting, share.numpy().astype(np.float32))


def _as_input(bag: Bag) -> Volume:
    """The bag as a record's input: one channel a feature, one slice, one row."""
    data = np.broadcast_to(np.float32(0), (bag.features.shape[1], 1, 1, len(bag)))
    return Volume(data, np.eye(4), (), "pixel", bag.name)
