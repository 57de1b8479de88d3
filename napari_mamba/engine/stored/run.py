"""The run out of core: one generator from an image on disk to an answer on disk, which goes on where it was stopped."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from napari_mamba.engine.options import RunOptions, check_followed
from napari_mamba.engine.preparation.steps import preparation_steps
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.result import Result
from napari_mamba.engine.run import explained
from napari_mamba.engine.stored.answers import StoredLabels, stored_answer
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.preparing import check_steps
from napari_mamba.engine.stored.session import StoredSession
from napari_mamba.engine.stored.tasks import Spread
from napari_mamba.engine.stored.work import Job
from napari_mamba.io.stores import address_of, is_address
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def run_into(
    source: Volume | Callable[[], Volume],
    bundle: Bundle,
    target: str | os.PathLike[str],
    options: RunOptions | None = None,
    cancel: threading.Event | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    spread: Spread | None = None,
) -> Generator[Progress, None, Result]:
    """Apply a bundle to an image that need not fit into memory, and write the answer into an OME-Zarr store.

    Parameters
    ----------
    source : Volume, or callable that gives one
        Its data any array-like that basic slices read: what `napari_mamba.io` leaves on disk, Dask, memory-mapped.
        With `spread` it is sent to other processes, so what opens the image there is better than an array in memory.
    bundle : Bundle
        For segmentation, restoration or fusion.
    target : str or path
        A folder that ends in .zarr, or an address.
    options : RunOptions, optional
    cancel : threading.Event, optional
        Set it to stop; what is written stays, for a run that goes on.
    resume : bool
        Go on with what a run of the same input, bundle and options has left; begin anew where nothing was.
    overwrite : bool
        Remove what is there first.
    spread : Spread, optional
        Other processes that compute; by default this one.

    Yields
    ------
    Progress

    Returns
    -------
    Result
        `labels` or `image` with values on disk. Labels equal those of `run` voxel for voxel.

    Raises
    ------
    NeedsMemory
        If the bundle or an option takes the image whole, before anything is written.
    InputError, BundleError, OutOfMemoryError, RunError
        As `run`.
    OutputError
        If the store cannot be written, holds something else, or another run writes there.
    """
    with explained(bundle):
        place = address_of(target) if is_address(target) else os.path.abspath(target)
        check_stored(bundle, options or RunOptions())
        session = StoredSession(Job(source, bundle, options or RunOptions(), place), cancel, spread)
        return (yield from session.events(resume=resume, overwrite=overwrite))


def check_stored(bundle: Bundle, options: RunOptions) -> None:
    """Raise `NeedsMemory` where a bundle or an option is not for runs out of core, without looking at an image."""
    check_followed(bundle, options)
    wanted = [name for name in ("uncertainty", "probabilities", "residual") if getattr(options, name)]
    if wanted or options.axis == "all":
        what = f"the {wanted[0]}" if wanted else "the mean of slices along three axes"
        raise NeedsMemory(f"{what} is made in memory alone: leave it out, or give a --region of the image that fits")
    check_steps(preparation_steps(bundle, options.spacing, options.slice_profile))
    answer = stored_answer(bundle, len(bundle.channels), None, options=options)
    if options.region is not None and isinstance(answer, StoredLabels) and answer.structures:
        raise NeedsMemory("the largest part within a region is found in memory: give a coarser --level that fits")
