"""The plugin's entry in the right-click menu of layers."""

from __future__ import annotations

_registered: list[object] = []


def add_to_layer_menu() -> None:
    """Put the entry there, once.

    A manifest cannot: napari 0.9 takes contributions to its menu bar only. So the entry is there from the first use of
    the plugin on. napari runs without this application in headless scripts, which have no menus.
    """
    if _registered:
        return
    from app_model import Application
    from app_model.types import Action

    app = Application.get_app("napari")
    if app is None:
        return
    action = Action(
        id="napari-mamba.run_on_layer",
        title="Run a Mamba model on this layer…",
        callback="napari_mamba.ui.menus:run_on_layer",
        menus=[{"id": "napari/layers/context", "group": "5_split_merge"}],
    )
    _registered.append(app.register_action(action))
