"""The plugin's entry in the right-click menu of layers."""

from __future__ import annotations

from typing import Any

ENTRY = "napari-mamba.run_on_layer"


def add_to_layer_menu() -> None:
    """Put the entry there, once.

    A manifest cannot: napari 0.9 takes contributions to its menu bar only. So the entry is there from the first use of
    the plugin on. In headless scripts there are no menus, and nothing happens.
    """
    from app_model.types import Action, MenuRule

    app = application()
    if app is None or ENTRY in app.commands:
        return
    action: Action[..., None] = Action(
        id=ENTRY,
        title="Run a Mamba model on this layer…",
        callback="napari_mamba.ui.menus:run_on_layer",
        menus=[MenuRule(id="napari/layers/context", group="5_split_merge")],
    )
    app.register_action(action)


def application() -> Any:
    """napari's registry of commands and menus, None where this napari keeps it elsewhere."""
    try:
        from napari._app_model import get_app_model
    except ImportError:
        return None
    return get_app_model()
