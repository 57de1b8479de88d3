"""A run of a volume in memory on a cluster: its blocks on all workers, or all of it on one of them."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.cluster.on_worker import BundleReference, Outcome, outcome_of
from napari_mamba.cluster.spreading import SpreadJobs, spread
from napari_mamba.errors import OutputError
from napari_mamba.io.common.atomic import reason_of
from napari_mamba.io.common.settling import scratch_folder

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.cluster.connecting import Cluster
    from napari_mamba.engine import Progress, Result, RunOptions
    from napari_mamba.volume import Volume

_CHUNK = (64, 128, 128)


@dataclass(frozen=True)
class Carried:
    """A volume whose values lie in a Zarr array that all workers see; called, it opens them.

    Attributes
    ----------
    path : str
    grid : Volume
        With one voxel's values as its data: all but the values.
    """

    path: str
    grid: dict[str, Any]

    @classmethod
    def of(cls, volume: Volume, folder: Path) -> Carried:
        """Write the values into a folder."""
        import zarr

        path = str(folder / "image.zarr")
        chunks = (1, *(min(a, b) for a, b in zip(_CHUNK, volume.shape, strict=True)))
        array = zarr.create_array(path, shape=volume.data.shape, chunks=chunks, dtype=volume.data.dtype, zarr_format=2)
        for z in range(0, volume.shape[0], chunks[1]):  # what is lazy stays small
            array[:, z : z + chunks[1]] = np.asarray(volume.data[:, z : z + chunks[1]])
        grid = {name: getattr(volume, name) for name in ("affine", "channel_names", "units", "name")}
        return cls(path, {**grid, "affine": volume.affine.tolist()})

    def __call__(self) -> Volume:
        import zarr

        from napari_mamba.volume import Volume

        return Volume(zarr.open_array(self.path, mode="r"), **{**self.grid, "affine": np.array(self.grid["affine"])})


def run_on(
    cluster: Cluster,
    volume: Volume,
    bundle: Bundle,
    options: RunOptions,
    cancel: threading.Event | None = None,
    *,
    folder: Path,
) -> Generator[Progress, None, Result]:
    """`engine.run` on a cluster: the same answer.

    Segmentations and restorations whose preparation allows it are spread over all workers block by block; whatever
    needs the whole image in memory is run by one of them.

    Parameters
    ----------
    cluster : Cluster
    volume : Volume
    bundle : Bundle
    options : RunOptions
        `device` as each worker takes it.
    cancel : threading.Event, optional
    folder : Path
        That the workers see under the same name. Image and answer lie in it for the time of the run.

    Raises
    ------
    OutputError
        If nothing can be written there.
    InputError, BundleError, OutOfMemoryError, RunError
        As `engine.run`; and where the cluster is gone.

    Examples
    --------
    >>> with connect("tcp://head:8786") as cluster:  # doctest: +SKIP
    ...     events = run_on(cluster, volume, bundle, RunOptions(), folder=Path("/shared/scratch"))
    """
    from napari_mamba.engine.stored.reading.needs import NeedsMemory
    from napari_mamba.engine.stored.run import check_stored

    try:
        check_stored(bundle, options)
        whole = False
    except NeedsMemory:
        whole = True
    with ExitStack() as stack:
        try:
            place = stack.enter_context(scratch_folder(".on-cluster-", folder))
        except OSError as error:
            raise OutputError(
                f"the image cannot be handed to the cluster in {folder}: {reason_of(error)}; name a folder that this "
                "computer and all workers see"
            ) from error
        try:
            carried = Carried.of(volume, place)
        except OSError as error:
            raise OutputError(f"the image cannot be handed to the cluster in {folder}: {reason_of(error)}") from error
        call = _whole if whole else _blocks
        result = yield from call(cluster, carried, bundle, options, cancel or threading.Event(), place)
    return _on_grid_of(volume, result)


def _blocks(
    cluster: Cluster, image: Carried, bundle: Bundle, options: RunOptions, cancel: threading.Event, place: Path
) -> Generator[Progress, None, Result]:
    from napari_mamba.engine.stored.run import run_into

    target = place / "answer.zarr"
    result = yield from run_into(image, bundle, target, options, cancel, spread=SpreadJobs(cluster))
    for name in ("labels", "image"):
        if (found := getattr(result, name)) is not None:
            setattr(result, name, replace(found, data=np.asarray(found.data)))
    return result


def _whole(
    cluster: Cluster, image: Carried, bundle: Bundle, options: RunOptions, cancel: threading.Event, place: Path
) -> Generator[Progress, None, Result]:
    from napari_mamba.engine import Progress, Result

    yield Progress("network", 0, 1, message="One worker computes: this model or option needs the whole image at once.")
    found: list[Outcome] = []
    stop = threading.Event()

    def compute() -> None:
        try:
            with closing(spread(cluster, run_whole, [(BundleReference.of(bundle), image, options)], stop)) as ended:
                found.extend(outcome for _, outcome in ended)
        except Exception as error:  # handed to the thread that waits
            found.append(outcome_of(_raise, error))

    thread = threading.Thread(target=compute, name="cluster", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            if cancel.is_set():
                stop.set()
            yield Progress("network", 0, 1)
            sleep(0.1)
    finally:  # whoever drives it may leave, too
        stop.set()
        thread.join()
    return Result(cancelled=True) if cancel.is_set() or not found else found[0].result()


def _raise(error: Exception) -> None:
    raise error


def run_whole(reference: Any, image: Carried, options: RunOptions) -> Outcome:
    """All of a run, in a worker: its `Result`."""

    def result() -> Result:
        from napari_mamba.engine import run_to_end

        bundle = reference.load() if isinstance(reference, BundleReference) else reference
        volume = image()
        return run_to_end(replace(volume, data=np.asarray(volume.data)), bundle, options)

    return outcome_of(result)


def _on_grid_of(volume: Volume, result: Result) -> Result:
    """The answer with all that the volume's own header says, where it lies on the same grid."""
    for name in ("labels", "image"):
        found = getattr(result, name)
        if found is not None and found.shape == volume.shape and np.allclose(found.affine, volume.affine, atol=1e-4):
            setattr(result, name, volume.with_data(found.data, found.channel_names))
    return result
