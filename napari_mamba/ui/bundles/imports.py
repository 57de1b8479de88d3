"""What a path holds that the user wants as a bundle: one as it is, or a foreign checkpoint to import. No Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mamba.errors import NapariMambaError, UnsaidError


@dataclass(frozen=True)
class Unsaid:
    """What an import has to be told, see `UnsaidError`; it goes through a pipe."""

    network: str
    missing: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """What became of a path: a bundle's place, and whether it was made just now; or a sentence about what is wrong."""

    path: Path | None = None
    imported: bool = False
    error: str = ""
    cancelled: bool = False
    unsaid: Unsaid | None = None


class _Cancelled(BaseException):
    """Not an `Exception`: importers turn those into sentences about the file."""


def open_or_import(
    path: str,
    on_progress: Callable[[str, float], object] = lambda *_: None,
    cancel: threading.Event | None = None,
    choices: Mapping[str, Any] | None = None,
) -> Opened:
    """Take a bundle as it is, or make one of a foreign checkpoint in the user's folder. Imports torch.

    Nothing that is read executes; see `napari_mamba.bundles.import_checkpoint`. `on_progress` is told what is done
    and the share of the whole that is done. Once `cancel` is set, the import ends with its next step, and leaves
    nothing behind. `choices` are said to the importer.
    """

    def tell(what: str, share: float) -> None:
        if cancel is not None and cancel.is_set():
            raise _Cancelled
        on_progress(what, share)

    from napari_mamba import bundles
    from napari_mamba.bundles.importers import import_checkpoint
    from napari_mamba.bundles.source import Source
    from napari_mamba.errors import BundleError

    place = Path(path).expanduser()
    try:
        Source.at(place)
    except BundleError as not_a_bundle:
        try:
            made = import_checkpoint(place, on_progress=tell, **(choices or {}))
            return Opened(bundles.load(made).path, imported=True)
        except _Cancelled:
            return Opened(cancelled=True)
        except UnsaidError as error:
            return Opened(error=str(error), unsaid=Unsaid(error.network, error.missing, error.arguments, error.presets))
        except (NapariMambaError, OSError) as error:
            nothing_known = not place.exists() or "no such" in str(error)
            return Opened(error=str(not_a_bundle if nothing_known else error))
    try:
        return Opened(bundles.load(place).path)
    except (NapariMambaError, OSError) as error:
        return Opened(error=str(error))
