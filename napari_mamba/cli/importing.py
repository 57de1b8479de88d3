"""`import`: bundles from the checkpoints of others."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.failures import quiet_libraries

if TYPE_CHECKING:
    from napari_mamba.bundles.progress import OnProgress

SECONDS_BETWEEN_LINES = 5.0


def import_bundle(source: Path, destination: Path | None, *, overwrite: bool, **choices: Any) -> None:
    """Make a bundle of a foreign checkpoint and say where it is and what it holds."""
    with quiet_libraries(), shown() as on_progress:
        from napari_mamba import bundles

        chosen = {key: value for key, value in choices.items() if value is not None}
        path = bundles.import_checkpoint(source, destination, overwrite=overwrite, on_progress=on_progress, **chosen)
        bundle = bundles.load(path)
    print(f"bundle    {path}")
    print(f"network   {bundle.network.name}, {len(bundle.weights)} set(s) of weights")
    print(f"channels  {', '.join(channel.name for channel in bundle.channels)}")
    if bundle.classes:
        print(f"classes   {_some([label.name for label in bundle.classes])}")


@contextmanager
def shown() -> Iterator[OnProgress]:
    """What an import does and how far it is, on stderr: a bar in a terminal, else a line every few seconds."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

    columns = SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _lines() -> OnProgress:
    last = monotonic()

    def tell(what: str, share: float) -> None:
        nonlocal last
        if monotonic() - last > SECONDS_BETWEEN_LINES:
            last = monotonic()
            print(f"{what}, {share:.0%}", file=sys.stderr, flush=True)

    return tell


def show_presets() -> None:
    """Each preset, its networks and where it was read."""
    from napari_mamba.bundles.importers.presets import PRESETS

    for name, preset in PRESETS.items():
        print(f"{name:<12} {', '.join(preset.networks)}")
        print(f"{'':<12} {preset.source}")
        if preset.note:
            print(f"{'':<12} {preset.note}")


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
