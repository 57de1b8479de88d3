"""What the user's preferences say to the engine's process; it goes along with each request. No Qt, no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from napari_mamba.bundles.bundle import ENVIRONMENT
from napari_mamba.errors import NapariMambaError


@dataclass(frozen=True)
class Settings:
    """What holds for one request.

    Parameters
    ----------
    bundle_folder : str
        Where bundles are found and imported to; empty for the platform's own place.
    memory_bytes : int
        Most memory of a run; 0 for all.
    """

    bundle_folder: str = ""
    memory_bytes: int = 0

    def use_folder(self) -> None:
        """Let the folder hold in this process."""
        if self.bundle_folder:
            os.environ[ENVIRONMENT] = self.bundle_folder
        else:
            os.environ.pop(ENVIRONMENT, None)

    @contextmanager
    def limited(self, arguments: Sequence[Any]) -> Iterator[None]:
        """Let the limit of memory hold while a request that computes goes on."""
        if not self.memory_bytes:
            yield
            return
        from napari_mamba.engine import choose_device
        from napari_mamba.engine.memory import limited

        try:
            device = choose_device(_device(arguments)).torch_device.type
        except NapariMambaError:  # said by the run
            device = ""
        with limited(self.memory_bytes, device):
            yield


def current_settings() -> Settings:
    """Those of the user's preferences now."""
    from napari_mamba.ui.preferences import preferences

    return Settings(os.environ.get(ENVIRONMENT, ""), max(preferences().memory_gb, 0) * 2**30)


def _device(arguments: Sequence[Any]) -> str:
    """The device of a request's options, which lie among its arguments or theirs."""
    for one in arguments:
        if isinstance(one, tuple | list):
            return _device(one)
        if hasattr(one, "precision"):  # `RunOptions`, and those of a registration; arrays have a device, too
            return str(one.device)
    return "auto"
