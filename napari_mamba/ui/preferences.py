"""What the user set on the plugin's page of napari's Preferences; the manifest declares it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Preferences:
    """Defaults of the dock widget.

    Parameters
    ----------
    device, precision : str
        As `RunOptions` takes them.
    uncertainty : bool
        Add the entropy of a segmentation.
    cache_mb : int
        Main memory for results of earlier runs; 0 keeps none.
    memory_gb : int
        Most memory that a run may take, in 2**30 bytes: of the GPU, or main memory where it runs on the CPU; 0 for all.
    bundle_folder : str
        Where bundles are imported to and found; empty for the platform's own place.
    scheduler : str
        Address of a Dask scheduler, to whose cluster runs go; empty for none.
    """

    device: str = "auto"
    precision: str = "auto"
    uncertainty: bool = False
    cache_mb: int = 512
    memory_gb: int = 0
    bundle_folder: str = ""
    scheduler: str = ""


def preferences() -> Preferences:
    """The user's preferences, or the defaults where napari knows no settings of this plugin."""
    run = _settings()
    if run is None:
        return Preferences()
    chosen = {name: getattr(run, name, default) for name, default in vars(Preferences()).items()}
    chosen["device"] = str(chosen["device"]).strip() or "auto"
    chosen["bundle_folder"] = str(chosen["bundle_folder"]).strip()
    address = str(chosen["scheduler"]).strip()
    chosen["scheduler"] = address if "://" in address or not address else f"tcp://{address}"
    return Preferences(**chosen)


def on_preferences_changed(callback: Callable[[], None]) -> Callable[[], None]:
    """Have `callback` called whenever a preference changes; returns what ends that."""
    run = _settings()
    if run is None:
        return lambda: None

    def relay(event: object = None) -> None:
        callback()

    run.events.connect(relay)
    return lambda: run.events.disconnect(relay)


def folder_of(chosen: Preferences) -> Path | None:
    """The folder that the user named for bundles, None where there is none."""
    return Path(chosen.bundle_folder).expanduser() if chosen.bundle_folder else None


def _settings() -> Any:
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings("napari-mamba").run
    except (KeyError, AttributeError):
        return None
