"""`import`: bundles from the checkpoints of others, and what their makers say in words on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.failures import quiet_libraries
from napari_mamba.errors import InputError
from napari_mamba.io.paths import expanded

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


def parse_arguments(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """`["residual=false", "upsampler=pixelshuffle"]` to a mapping; values are JSON, or text where they are not."""
    if not pairs:
        return None
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--argument takes NAME=VALUE, not {pair!r}")
        try:
            parsed[name.strip()] = json.loads(value)
        except ValueError:
            parsed[name.strip()] = value
    return parsed


def parse_names(text: str | None) -> list[str] | None:
    """ "liver, spleen" to a list."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"names are separated by one comma each, not as in {text!r}")
    return names


def parse_tile(text: str | None) -> list[int] | None:
    """ "256,256" or "128,128,128" to a list."""
    if text is None:
        return None
    sides = text.split(",")
    if len(sides) not in (2, 3) or not all(side.strip().isdigit() and int(side) > 0 for side in sides):
        raise InputError(f"a tile here is two or three positive numbers of voxels such as 128,128,128, not {text!r}")
    return [int(side) for side in sides]


def parse_objects(option: str, text: str | None) -> list[Any] | None:
    """A list of preparation's steps, or of a table's columns, as JSON, or the file that holds it."""
    if text is None:
        return None
    key, what = {"preparation": ("step", "steps"), "columns": ("name", "columns")}[option]
    try:
        found = json.loads(text if text.lstrip().startswith("[") else expanded(text).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"--{option} takes a JSON list of {what} or its file, and {text!r} is neither ({error})"
        ) from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"--{option} takes a list of objects, each with its name under '{key}'")
    return found


def _some(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
