"""What the user set on the plugin's page of napari's Preferences; the manifest declares it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preferences:
    """Defaults of the dock widget."""

    device: str = "auto"
    precision: str = "auto"
    uncertainty: bool = False


def preferences() -> Preferences:
    """The user's preferences, or the defaults where napari knows no settings of this plugin."""
    from napari.settings import get_plugin_settings

    try:
        run = get_plugin_settings("napari-mamba").run
    except (KeyError, AttributeError):
        return Preferences()
    return Preferences(device=str(run.device).strip() or "auto", precision=run.precision, uncertainty=run.uncertainty)
