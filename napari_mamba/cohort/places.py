"""Where the files of a batch go, and that one batch alone writes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mamba.cohort.cases import bids
from napari_mamba.cohort.cases.case import Case
from napari_mamba.errors import InputError, OutputError

DERIVATIVES = Path("derivatives") / "napari-mamba"


@dataclass(frozen=True)
class Places:
    """The files of one case, from the batch's folder."""

    output: Path | None
    record: Path
    thumbnail: Path
    lookup: Path | None = None


def batch_folder(folder: Path, *, as_bids: bool) -> Path:
    """Where table and summary go: the folder itself, or its BIDS derivatives."""
    return folder / DERIVATIVES if as_bids else folder


def places(case: Case, bundle: Any, *, as_bids: bool) -> Places:
    """Where the files of a case go.

    Raises
    ------
    InputError
        If BIDS is asked for and the case has no subject.
    """
    if not as_bids:
        own = Path("cases") / case.name
        names = {"segmentation": "labels.nii.gz", "restoration": "image.nii.gz", "fusion": "image.nii.gz"}
        names["diffusion"] = "image.nii.gz"
        output = own / names[bundle.task] if bundle.task in names else None
        return Places(output, own / "report.json", own / "thumbnail.jpg")
    suffix = {"segmentation": "dseg", "restoration": case.suffix or "image", "fusion": "fused"}.get(
        bundle.task, "sample" if bundle.task == "diffusion" else "scores"
    )
    path = bids.derivative(case, bundle.name, suffix)
    output = None if suffix == "scores" else path.with_name(f"{path.name}.nii.gz")
    lookup = path.with_name(f"{path.name}.tsv") if suffix == "dseg" else None
    return Places(output, path.with_name(f"{path.name}.json"), path.with_name(f"{path.name}_thumbnail.jpg"), lookup)


def all_places(cases: list[Case], bundle: Any, *, as_bids: bool) -> list[Places]:
    """Of each case; raises `InputError` if two would write one file."""
    found = [places(case, bundle, as_bids=as_bids) for case in cases]
    taken: dict[str, Case] = {}
    for case, place in zip(cases, found, strict=True):
        before = taken.setdefault(str(place.record).casefold(), case)
        if before is not case:
            raise InputError(f"{before.name} and {case.name} would both write {place.record}: run them apart")
    return found


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other batches out of a folder, which is made if need be. A batch that was killed leaves no lock behind.

    Raises
    ------
    OutputError
        If another batch runs there, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".batch.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise OutputError(f"another batch is writing into {folder}: wait for it, or choose another folder") from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or "its disk has no locks"
        raise OutputError(f"{folder} cannot be written ({reason}): choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def check_free(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise `OutputError` if a batch is there already and nothing was said about it."""
    held = (folder / "table.csv").exists() or (folder / "cases").exists()
    if held and not (resume or overwrite):
        raise OutputError(
            f"{folder} holds a batch already: go on with --resume, begin anew with --overwrite, or name another one"
        )
