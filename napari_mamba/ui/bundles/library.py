"""The bundles at hand, as a plain model: those installed, and those opened from elsewhere. No Qt, no torch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from psygnal import Signal

from napari_mamba import bundles
from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


@dataclass
class Library:
    """Every bundle that can be run.

    Attributes
    ----------
    bundles : tuple of Bundle
        Sorted by name.
    """

    bundles: tuple[Bundle, ...] = ()
    changed: ClassVar[Signal] = Signal()
    """Bundles came or went."""

    def __post_init__(self) -> None:
        self._opened: dict[Path, Bundle] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look at the disk anew; those opened from elsewhere stay while they are there."""
        installed = bundles.available()
        places = {bundle.path for bundle in installed}
        self._opened = {path: one for path, one in self._opened.items() if path not in places and path.exists()}
        found = sorted([*installed, *self._opened.values()], key=lambda bundle: bundle.name)
        before = [(bundle.path, bundle.version) for bundle in self.bundles]
        if before == [(bundle.path, bundle.version) for bundle in found]:
            return  # the same objects stay, and with them what was chosen
        known = {(bundle.path, bundle.sha256): bundle for bundle in self.bundles}
        self.bundles = tuple(known.get((bundle.path, bundle.sha256), bundle) for bundle in found)
        self.changed.emit()

    def add(self, bundle: Bundle) -> Bundle:
        """Take in a bundle from anywhere; one of the same place is replaced."""
        self._opened[bundle.path] = bundle
        self.bundles = tuple(one for one in self.bundles if one.path != bundle.path)
        self.refresh()
        return self.find(bundle.path) or bundle

    def find(self, place: Path | str) -> Bundle | None:
        """The bundle of that name, or at that path."""
        return next((b for b in self.bundles if b.name == str(place) or b.path == Path(place)), None)

    def removable(self, bundle: Bundle) -> bool:
        """Whether it is one of the user's own: those that came with the program, or lie elsewhere, are not removed."""
        return bundle.path.parent == bundles.user_folder()

    def remove(self, bundle: Bundle) -> None:
        """Delete a bundle of the user's folder from the disk.

        Raises
        ------
        InputError
            If it came with the program or lies elsewhere.
        OutputError
            If the system does not allow it.
        """
        if not self.removable(bundle):
            raise InputError(f"{bundle.name} is not in your bundle folder: only those there can be removed")
        try:
            if bundle.path.is_dir() and not bundle.path.is_symlink():
                shutil.rmtree(bundle.path)
            else:
                bundle.path.unlink()
        except OSError as error:
            raise OutputError(f"{bundle.name} could not be removed ({error.strerror}): {bundle.path}") from error
        self._opened.pop(bundle.path, None)
        self.refresh()

    def use_folder(self, folder: Path | None) -> None:
        """Take the user's bundles from another folder; None for the platform's own place."""
        from napari_mamba.bundles.bundle import ENVIRONMENT

        if folder is None:
            if os.environ.get(_CHOSEN):
                os.environ.pop(ENVIRONMENT, None)
                os.environ.pop(_CHOSEN, None)
        else:
            # The environment, since the engine's process and imports have to find the same folder.
            os.environ[ENVIRONMENT] = os.environ[_CHOSEN] = str(folder)
        self.refresh()


_CHOSEN = "_NAPARI_MAMBA_CHOSEN_FOLDER"


def tasks_of(found: Sequence[Bundle]) -> list[str]:
    """The tasks of bundles, in the order in which a list shows them."""
    order = (
        "segmentation", "restoration", "fusion", "classification", "slide", "dose", "registration", "diffusion",
        "prediction", "features",
    )  # fmt: skip
    return [task for task in order if any(bundle.task == task for bundle in found)]
