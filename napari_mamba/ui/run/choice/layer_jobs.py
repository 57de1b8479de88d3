"""Layers as runs: what is read at the click, and what only when the run begins. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.checks import takes_rgb
from napari_mamba.ui.layers import at_level, layers_to_volume, stack_channels
from napari_mamba.ui.run.choice.region import region_of
from napari_mamba.ui.run.queue.jobs import Job

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.run.choice.options import Options
    from napari_mamba.volume import Volume


def layer_job(
    viewer: ViewerModel, layers: Sequence[Layer], bundle: Bundle, options: Options, frame: int | None = None
) -> tuple[Job, Volume]:
    """A run on layers that are a bundle's channels.

    Parameters
    ----------
    viewer : napari viewer model
        Where the layer of the region is looked for.
    layers : sequence of layers
        One a channel.
    bundle : Bundle
    options : Options
    frame : int, optional
        Which image of a series.

    Returns
    -------
    Job
        Knows everything of the layers that it needs: they may be moved, renamed or removed before it runs.
    Volume
        What it will run on; of several channels the data stay apart, and lazy.

    Raises
    ------
    InputError
        If the layers cannot be used, or an option is no number.
    """
    paths, level = _paths_of(layers), options.resolution
    layers = [at_level(layer, level) for layer in layers]
    singles = [layers_to_volume([layer], frame, colours=len(layers) == 1 and takes_rgb(bundle)) for layer in layers]
    place = singles[0][1]
    volume = stack_channels([single for single, _ in singles])
    run_options = options.run_options(bundle, place.order, layers[0].name)
    finish: Any = None
    if options.region and options.region in viewer.layers:
        axes = [place.order.index(axis) for axis in range(3)]
        whole = volume
        source = layers[0] if layers[0].ndim < 4 else _frame(layers[0], frame)
        region = region_of(viewer.layers[options.region], whole, source, axes)
        volume = region.of(whole)

        def finish(result: Any, _: Volume) -> Any:
            return region.back(result, whole)

    return Job(
        title=place.name,
        bundle=bundle,
        options=run_options,
        read=_reader(volume),
        place=place,
        finish=finish,
        paths=paths,
        frame=frame if layers[0].ndim > 3 else None,
        colours=bool(getattr(layers[0], "rgb", False)),
        level=level,
        region=options.region if finish is not None else "",
        table=(options.table, options.table_row or layers[0].name) if run_options.row is not None else ("", ""),
    ), volume


def _reader(volume: Volume) -> Callable[[], Volume]:
    """Reads what is lazy, and lays the channels together, when it is called: in the worker's thread."""

    def read() -> Volume:
        return volume.with_data(np.ascontiguousarray(volume.data), volume.channel_names)

    return read


def _frame(layer: Layer, frame: int | None) -> Layer:
    from napari_mamba.ui.layers import frame_of

    return frame_of(layer, frame or 0)


def _paths_of(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The files of the channels, each once where one holds several; empty where a channel came from none."""
    paths = [_path_of(layer) for layer in layers]
    return tuple(dict.fromkeys(paths)) if all(paths) else ()


def _path_of(layer: Layer) -> str:
    from napari_mamba.ui.layers import KEY

    known = layer.metadata.get(KEY, {})
    return str(known.get("path", "")) if "bundle" not in known else ""
