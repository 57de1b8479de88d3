"""A run's answer beside its data: layers, and the panel that shows what is in them."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Scripts take `add_result` from here; importing the room alone should not import napari's layers.
    if name == "add_result":
        from napari_mamba.ui.results.layers import add_result

        return add_result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
