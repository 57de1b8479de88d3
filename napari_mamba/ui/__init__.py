"""What napari shows: the dock widgets, readers, writers and sample data. The only room that imports Qt or napari."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "run_on":  # here for scripts; importing the room should not import Qt
        from napari_mamba.ui.run.scripting import run_on

        return run_on
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
