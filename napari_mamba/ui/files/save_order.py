"""Which file types napari's Save dialog offers first, and which writer a plain `layers.save` takes."""

from __future__ import annotations

from typing import Any

OURS = "napari-mamba"


def put_writers_first(_context: Any = None) -> None:
    """Put this plugin's writers before the others', which keep their order; called by npe2 on the first use.

    npe2 orders the writers of one kind of layer by the order in which it found the plugins, which is that of a folder
    on disk. So napari's own "lossless (*.tif …)" may be what the dialog starts with, and a name that ends in ".nii.gz"
    would be refused by it. A manifest has no word for the order; where npe2 keeps its list elsewhere, nothing happens.

    Parameters
    ----------
    _context : npe2.PluginContext, optional
        What npe2 hands to a function that is called on activation.
    """
    from npe2 import PluginManager

    writers = getattr(getattr(PluginManager.instance(), "_contrib", None), "_writers", None)
    if isinstance(writers, list):
        writers.sort(key=lambda entry: not entry[-1].command.startswith(f"{OURS}."))


def write_by_another(path: str, data: Any, attributes: dict[str, Any], kind: str) -> list[str]:
    """Write a layer with the first other plugin's writer that knows the path's ending; empty where none does.

    Since this plugin's file types stand first in the dialog, a name that ends in ".png" may come here.

    Parameters
    ----------
    path : str
    data, attributes, kind
        The layer, as napari hands it to writers.
    """
    import npe2

    for writer in npe2.PluginManager.instance().iter_compatible_writers([kind]):
        endings = tuple(ending.lower() for ending in writer.filename_extensions)
        if writer.plugin_name != OURS and endings and path.lower().endswith(endings):
            return npe2.write(path, [(data, attributes, kind)], plugin_name=writer.plugin_name)
    return []
