"""The run: one generator from a volume to a result, for every front end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.result import Result
from napari_mamba.errors import InputError, NapariMambaError, OutOfMemoryError, RunError
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.context import NewArray


def run(
    volume: Volume,
    bundle: Bundle,
    options: RunOptions | None = None,
    cancel: threading.Event | None = None,
    *,
    new_array: NewArray | None = None,
) -> Generator[Progress, None, Result]:
    """Apply a bundle to a volume, step by step.

    Parameters
    ----------
    volume : Volume
        The bundle's channels on one grid.
    bundle : Bundle
        From `napari_mamba.bundles.load`.
    options : RunOptions, optional
    cancel : threading.Event, optional
        Set it to stop: looked at after each event, the latest between two passes of the network. The generator then
        returns a `Result` with `cancelled` set, so that its `finally` blocks run in the thread that drives it.
    new_array : callable, optional
        ``new_array(shape, dtype)`` makes what the network's blended slices are written into: a store on disk where
        they need not fit into memory. By default an array in main memory.

    Yields
    ------
    Progress
        PyTorch's thread-local modes (inference mode, autocast) are never on while the generator is suspended.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If the volume or an option does not suit the bundle or this machine.
    BundleError
        If the bundle's weights or its description are damaged.
    OutOfMemoryError
        If memory ends even at the smallest tile.
    RunError
        If the network fails otherwise. Never a bare `RuntimeError`, which napari's workers swallow.

    Examples
    --------
    >>> for progress in run(volume, bundle):  # doctest: +SKIP
    ...     print(progress.stage, progress.done, progress.total)
    """
    with explained(bundle):
        if bundle.tile.frames or bundle.task == "prediction":
            seen = f"sees {bundle.tile.frames} frames of a film at once" if bundle.tile.frames else "predicts a film"
            raise InputError(f"{bundle.name} {seen}, not one image: give it a film, or an image with time")
        options = options or RunOptions()
        # Here, because PyTorch takes seconds to import and a GUI should not wait for it before the first run.
        from napari_mamba.engine.networks.waking import wake

        wake(options.device, options.precision, bundle.task)
        from napari_mamba.engine.session import Session

        stored = {} if new_array is None else {"new_array": new_array}
        if options.region is not None:
            from napari_mamba.engine.region import events_within

            return (yield from events_within(volume, bundle, options, cancel, **stored))
        from napari_mamba.engine.locating import events_located, is_located

        if is_located(volume, bundle):
            return (yield from events_located(volume, bundle, options, cancel))
        return (yield from Session(volume, bundle, options, cancel, **stored).events())


@contextmanager
def explained(bundle: Bundle) -> Iterator[None]:
    """One kind of error for whatever fails inside a network: a caller has one to tell."""
    try:
        yield
    except NapariMambaError:
        raise
    except Exception as error:
        from napari_mamba.engine.memory import is_out_of_memory

        if is_out_of_memory(error):
            raise OutOfMemoryError("memory ran out: close other programs, crop the image, or choose the cpu") from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunError(
            f"{bundle.name} stopped with an error ({type(error).__name__}: {reason}): try the device cpu and the "
            "precision float32, and report this if it stays"
        ) from error


def run_to_end(
    volume: Volume,
    bundle: Bundle,
    options: RunOptions | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """`run` without the generator: drains it, and hands each event to `on_progress`.

    Examples
    --------
    >>> result = run_to_end(volume, bundle, RunOptions(device="cpu"))  # doctest: +SKIP
    >>> result.labels.shape == volume.shape  # doctest: +SKIP
    True
    """
    return to_end(run(volume, bundle, options, cancel), on_progress)
