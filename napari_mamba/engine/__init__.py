"""A run: prepare, tile, infer, blend, restore; device, precision, memory, cancel, events.

Importing this room imports no torch, so that a GUI can offer its options at once; a run imports it where it happens.
"""

from napari_mamba.engine.device import available_devices, choose_device
from napari_mamba.engine.options import PRECISIONS, RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.result import ClassRow, Result
from napari_mamba.engine.run import run, run_to_end

__all__ = [
    "PRECISIONS",
    "ClassRow",
    "Progress",
    "Result",
    "RunOptions",
    "available_devices",
    "choose_device",
    "run",
    "run_to_end",
]
