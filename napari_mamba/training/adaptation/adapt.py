"""From a bundle and a few labelled images to a bundle of one's own: one generator, for every front end."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import bundles
from napari_mamba.bundles.writer import check_destination
from napari_mamba.errors import NapariMambaError, OutOfMemoryError, OutputError, RunError
from napari_mamba.io.paths import expanded
from napari_mamba.training.adaptation.options import NETWORKS, Adapted, AdaptOptions, AdaptProgress

Events = Generator[AdaptProgress, None, Any]


def adapt(
    bundle: str | Path,
    data: str | Path,
    output: str | Path,
    options: AdaptOptions | None = None,
    cancel: threading.Event | None = None,
) -> Generator[AdaptProgress, None, Adapted]:
    """Fine-tune a segmentation bundle on labelled images, whole or partly painted.

    Parameters
    ----------
    bundle : str or path
        Name or place of a bundle of exclusive classes.
    data : path
        See `napari_mamba.training.adaptation.data.cases.find_cases`.
    output : path
        The bundle to make: a folder or a .zip. Beside it, in `work_folder(output)`, lie checkpoint and history.
    options : AdaptOptions, optional
    cancel : threading.Event, optional
        Set it to stop: the best weights so far become the bundle, and `resume` goes on later.

    Yields
    ------
    AdaptProgress

    Returns
    -------
    Adapted

    Raises
    ------
    InputError, BundleError, OutputError
        Before training, with a sentence about what is wrong with the data, the bundle or the output.
    OutOfMemoryError, RunError
        If training itself fails. The last checkpoint stays.

    Examples
    --------
    >>> for event in adapt("hippocampus-mr", "my-data", "my-bundle"):  # doctest: +SKIP
    ...     print(event.stage, event.loss, event.score)
    """
    try:
        # Here, because PyTorch takes seconds to import, and a window should not wait for it.
        from napari_mamba.training.adaptation.training import Training

        chosen = options or AdaptOptions()
        return (yield from _steps(Training, bundle, Path(data), expanded(output), chosen, cancel or threading.Event()))
    except NapariMambaError:
        raise
    except OSError as error:
        reason = error.strerror or "no space, or no such place"
        raise OutputError(
            f"the disk refused ({reason}): free some space, or choose a folder that you may write to"
        ) from error
    except Exception as error:
        from napari_mamba.engine.memory import is_out_of_memory

        if is_out_of_memory(error):
            raise OutOfMemoryError("memory ran out: choose a smaller --patch or --batch-size 1") from error
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"training stopped with an error ({type(error).__name__}: {reason}): --resume goes on from the last "
            "checkpoint; report this if it stays"
        ) from error


def work_folder(output: Path) -> Path:
    """Where checkpoint, history and, while it trains, prepared images lie."""
    return output.parent / f"{output.name}.adapting"


def _steps(
    training: Any, bundle: str | Path, data: Path, output: Path, options: AdaptOptions, cancel: threading.Event
) -> Generator[AdaptProgress, None, Adapted]:
    from napari_mamba.training.adaptation import card, plan, state
    from napari_mamba.training.adaptation.data import store

    loaded, folder = bundles.load(bundle), work_folder(output)
    check_destination(output, options.overwrite or options.resume)
    saved = state.read_checkpoint(folder) if options.resume else None
    if saved is None and (folder / state.CHECKPOINT).exists() and not options.overwrite:
        raise OutputError(f"{folder} holds a stopped training: go on with --resume, or begin anew with --overwrite")
    held_out = state.people_held_out(saved) if saved else ()
    if len(loaded.weights) > 1:
        text = (
            f"{loaded.name} averages {len(loaded.weights)} networks: the first is adapted, and is the new bundle alone"
        )
        yield AdaptProgress("checking", 0, 0, message=text, warning=True)
    made = yield from plan.make_plan(loaded, data, options, held_out)
    if saved:
        state.check_people(saved, made.validation)
    groups = (made.training, made.validation, made.unlabelled)
    labelled = len(made.training) + len(made.validation)
    store.check_disk(
        folder, loaded, made.voxels + made.voxels * len(made.unlabelled) // labelled, NETWORKS.get(options.scheme, 1)
    )
    total = sum(len(group) for group in groups)
    parts: list[Any] = []
    yield AdaptProgress("preparing", 0, total)
    for cases in groups:
        preparing = store.prepare_cases(cases, loaded, made.classes, made.painted, folder / "images")
        parts.append((yield from _told(preparing, sum(len(part) for part in parts), total)))
    plan.check_prepared(made, *parts[:2])
    if cancel.is_set():
        return Adapted(None, True, None)
    run = training(loaded, made, parts, folder, options, cancel, saved)
    yield from _rounds(run, loaded, made, folder)
    if not run.state.best:
        return Adapted(None, True, None)
    yield AdaptProgress("writing", 0, 1)
    facts = run.facts() | {"peak_memory_bytes": peak_memory()}
    spec = card.adapted_spec(loaded, card.bundle_name(output.stem), run.description, made.classes, run.size, facts)
    text = card.card(spec, loaded, made.classes, facts)
    bundles.save(output, spec, [run.state.best], text, overwrite=options.overwrite or options.resume)
    if not cancel.is_set():
        parts.clear()
        run.release()
        for name in ("images", "preview-bundle"):
            shutil.rmtree(folder / name, ignore_errors=True)
    yield AdaptProgress("writing", 1, 1)
    return Adapted(output, cancel.is_set(), run.score, facts)


def _rounds(run: Any, loaded: Any, made: Any, folder: Path) -> Events:
    """The training's events, and a preview after each round that made it better."""
    from napari_mamba.training.adaptation import card, preview

    options = run.options
    shown = preview.find_case([*made.training, *made.validation], options.preview) if options.preview else None
    seen = -1
    for event in run.events():
        yield event
        if shown is None or event.stage != "validating" or not event.done or run.state.best_step == seen:
            continue
        seen = run.state.best_step
        yield AdaptProgress("previewing", 0, 1)
        facts = run.facts()
        spec = card.adapted_spec(loaded, "preview", run.description, made.classes, run.size, facts)
        device = options.device
        path = preview.write_preview(spec, run.state.best, shown, made.painted, folder, device, run.cancel)
        if path is not None:
            yield AdaptProgress("previewing", 1, 1, preview=str(path))


def _told(preparing: Generator[Any, None, Any], before: int, total: int) -> Events:
    done = before
    while True:
        try:
            case = next(preparing)
        except StopIteration as end:
            return end.value
        done += 1
        yield AdaptProgress("preparing", min(done, total), total, message=case.name)


def peak_memory() -> int:
    """Most bytes of main memory that this process has held; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024


def as_json(event: AdaptProgress) -> dict[str, Any]:
    """An event's own fields, for JSON lines."""
    fields = {"stage": event.stage, "done": event.done, "total": event.total, "fraction": round(event.fraction, 4)}
    seconds = None if event.seconds_left is None else round(event.seconds_left, 1)
    extra: dict[str, Any] = {"seconds_left": seconds, "message": event.message}
    if event.loss is not None:
        extra["loss"] = event.loss if np.isfinite(event.loss) else None
    if event.score is not None:
        extra |= {"score": asdict(event.score), "best": event.best}
    if event.preview:
        extra["preview"] = event.preview
    return fields | extra
