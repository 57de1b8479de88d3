"""The run over a film: one generator from frames to answers over time, for every front end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.frames.result import FilmResult
from napari_mamba.engine.options import RunOptions, check_followed
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.run import explained
from napari_mamba.errors import InputError
from napari_mamba.io.moving.film import Film, check_film

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.context import NewArray

_TASKS = ("segmentation", "restoration", "fusion", "classification", "prediction")


def run_film(
    film: Film,
    bundle: Bundle,
    options: RunOptions | None = None,
    cancel: threading.Event | None = None,
    *,
    new_array: NewArray | None = None,
) -> Generator[Progress, None, FilmResult]:
    """Apply a bundle to each frame of a film; a network that sees several frames at once sees overlapping windows.

    One that predicts gives the frames after the last one.

    Besides the answers no more than a window of frames is in memory, where the film reads them as they are asked for.

    Parameters
    ----------
    film : Film
        From `napari_mamba.io.moving.opening.open_film`.
    bundle : Bundle
        `tile.frames` says how many frames it sees; 0: each by itself.
    options : RunOptions, optional
        `overlap` counts for frames as for voxels. Maps beside the answer are not made over time.
    cancel : threading.Event, optional
        Looked at between two passes.
    new_array : callable, optional
        Makes what the answers are written into; an array in main memory if not given.

    Yields
    ------
    Progress
        In the stage "network" a step is one frame.

    Returns
    -------
    FilmResult

    Raises
    ------
    InputError
        For a film of one frame, frames of different size, or colours for a bundle of grey images.

    Examples
    --------
    >>> for progress in run_film(open_film(["clip.tif"]), bundle):  # doctest: +SKIP
    ...     print(progress.done, progress.total)
    """
    options, cancel = options or RunOptions(), cancel or threading.Event()
    with explained(bundle):
        _check_length(film, bundle)
        check_film(film)
        _check(bundle, options)
        unfollowed = check_followed(bundle, options)
        if new_array is None:
            from napari_mamba.engine.memory import host_array

            new_array = host_array
        if bundle.task == "prediction":
            from napari_mamba.engine.frames.ahead import run_ahead as steps
        elif bundle.tile.frames:
            from napari_mamba.engine.frames.clips import run_clips as steps
        else:
            from napari_mamba.engine.frames.single import run_each as steps
        result = yield from steps(film, bundle, options, cancel, new_array)
        if result.cancelled:
            return result
        first = film.frame(0)
        result.affine, result.units = np.array(first.affine), first.units
        result.times = film.times if result.times is None else result.times
        result.time_unit = film.time_unit
        result.warnings[:0] = [*film.notes, *(unfollowed if bundle.tile.frames else ())]  # others say it of a frame
        result.provenance |= {"frames": film.count, "window": bundle.tile.frames or 1}
        return result


def film_to_end(
    film: Film,
    bundle: Bundle,
    options: RunOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> FilmResult:
    """`run_film` without the generator: drains it, and hands each event to `on_progress`."""
    return to_end(run_film(film, bundle, options, cancel), on_progress)


def _check_length(film: Film, bundle: Bundle) -> None:
    """Raise `InputError` for one image and a network that has no answer to one."""
    if film.count > 1 or not (bundle.tile.frames or bundle.task == "prediction"):
        return
    frames = bundle.tile.frames
    what = f"sees {frames} frames of a film at once" if frames else "predicts how a film goes on"
    raise InputError(
        f"{bundle.name} {what}, and this is one image: give the film, or two or more of its frames as files in their "
        "order; for one image choose a bundle for images"
    )


def _check(bundle: Bundle, options: RunOptions) -> None:
    if bundle.task not in _TASKS:
        raise InputError(f"{bundle.name} is for {bundle.task}, which is no matter of frames: choose another bundle")
    asked: dict[str, Any] = {name: getattr(options, name) for name in ("uncertainty", "probabilities", "residual")}
    if odd := [name for name, value in asked.items() if value]:
        alone = "" if bundle.tile.frames or bundle.task == "prediction" else ", or run one frame by itself"
        raise InputError(f"over time there is no {odd[0]}: leave it away{alone}")
    if options.region is not None:
        raise InputError("over time there is no region: leave it away, or crop the film")
    if bundle.tile.frames and options.axis is not None:
        raise InputError(f"{bundle.name} sees several frames at once, as they lie in the film: leave the axis away")
