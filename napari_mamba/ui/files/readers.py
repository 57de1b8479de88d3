"""napari readers: every format of `napari_mamba.io`, each channel a layer in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from napari_mamba.ui.layers import volume_to_layers

LayerData = tuple[Any, dict[str, Any], str]
Paths = str | Sequence[str]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """The reader for a path, or None where `napari_mamba.io` does not know it.

    Parameters
    ----------
    path : str or list of str
        A file, a DICOM folder, an OME-Zarr store; a list where files are opened as a stack: the channels of one image,
        or the slices of one DICOM series.
    """
    from napari_mamba import io

    paths = [path] if isinstance(path, str) else list(path)
    return read_layers if paths and all(io.can_read(p) for p in paths) else None


def read_layers(path: Paths) -> list[LayerData]:
    """Layers of a file, a DICOM folder or a store; of several files, which are channels on one grid.

    Raises
    ------
    InputError
        As `napari_mamba.io.read` does; napari shows it as a notification.
    """
    from napari_mamba import io

    paths = [path] if isinstance(path, str) else list(path)
    return volume_to_layers(io.read(paths), str(paths[0]))
