"""What a run into a store would take, as lines for people or one for a program; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.progress import duration
from napari_mamba.cli.runs.storing import is_store
from napari_mamba.errors import InputError
from napari_mamba.io.stores import address_of, is_address

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import RunOptions
    from napari_mamba.engine.stored.forecasting.forecast import Forecast


def tell_forecast(
    inputs: Sequence[Path],
    reading: dict[str, Any],
    bundle: Bundle,
    output: Path | None,
    options: RunOptions,
    *,
    workers: int = 1,
    emit: Callable[..., None] | None = None,
) -> None:
    """Print what a run would take.

    Parameters
    ----------
    inputs, reading, bundle, output, options
        Of the run.
    workers : int
        As many of this machine as would compute.
    emit : callable, optional
        Takes an event's name and its facts: they are told so, as "forecast", instead of as a table.

    Raises
    ------
    InputError
        If the output is no Zarr store; where the bundle takes the image whole, if that is more than memory has.
    """
    from napari_mamba import io
    from napari_mamba.engine.stored.forecasting.in_memory import forecast_in_memory
    from napari_mamba.engine.stored.forecasting.out_of_core import forecast
    from napari_mamba.engine.stored.reading.needs import NeedsMemory

    if output is None or not is_store(output):
        raise InputError("--dry-run is for outputs in a Zarr store: name one that ends in .zarr")
    paths = (address_of(path) if is_address(path) else os.path.abspath(path) for path in inputs)
    source = io.Opener(tuple(paths), reading)
    try:
        found = forecast(source, bundle, address_of(output) if is_address(output) else output, options)
    except NeedsMemory as error:
        if is_address(output):  # as the run itself
            raise
        found, workers = forecast_in_memory(source, bundle, output, options, str(error).partition(": ")[0]), 1
    if emit is not None:
        emit("forecast", **asdict(found), seconds=found.seconds(workers), workers=workers, warnings=found.warnings)
        return
    for name, text in rows(found, workers):
        print(f"{name:8}{text}")
    for warning in found.warnings:
        print(f"warning: {warning}")


def rows(found: Forecast, workers: int = 1) -> list[tuple[str, str]]:
    """The table: names, and what there is to say."""
    from napari_mamba.engine.stored.forecasting.forecast import gib

    channels, *shape = found.shape
    of_channels = f" of {channels} channels" if channels > 1 else ""
    packed = f"{found.levels} levels" if found.levels > 1 else "one level"
    network = found.seconds(workers) - found.reading_seconds
    by = f" by {workers} workers" if workers > 1 else ""
    each = duration(found.pass_seconds) if found.pass_seconds >= 10 else f"{1000 * found.pass_seconds:.0f} ms"
    looks = "one look" if found.readings == 1 else f"{found.readings} looks"
    free = "" if found.free_memory_bytes is None else f"; {gib(found.free_memory_bytes)} are free"
    room = "" if found.free_disk_bytes is None else f"; {gib(found.free_disk_bytes)} are free"
    taken = f"{looks} at all of the image" if not found.in_memory else "reading and preparing the image"
    whole = [("run", f"in memory: {found.in_memory}")] if found.in_memory else []
    return [
        *whole,
        ("image", f"{'x'.join(map(str, shape))} voxels{of_channels}, {found.dtype}, {gib(found.read_bytes)}"),
        ("network", f"{found.passes:,} passes over tiles of {found.tile}; one took {each} on {found.device}"),
        (
            "time",
            f"about {duration(found.seconds(workers))}: {taken} "
            f"{duration(found.reading_seconds)}, the network {duration(network)}{by}",
        ),
        ("memory", f"about {gib(found.memory_bytes)}{' in each' if workers > 1 else ''}{free}"),
        ("disk", f"at most {gib(found.written_bytes)} in {packed}, before it is packed{room}"),
    ]
