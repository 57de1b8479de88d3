"""What a run into a store ends with: the store's metadata, the table of its classes, the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_mamba.engine.answers.postprocessing import count_warnings
from napari_mamba.engine.result import ClassRow, Result, voxel_ml
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.target import explained, state_of
from napari_mamba.engine.stored.work import Job, Work
from napari_mamba.engine.tiling.tiles import Shape
from napari_mamba.errors import OutputError
from napari_mamba.io.stores import open_store
from napari_mamba.volume import Volume

_MAKER = "napari-mamba"
"""The store's attribute that says of which run it is the answer, for one that would go on with it."""


def result_of(work: Work, journal: Journal, factors: Sequence[Shape]) -> Result:
    """Make an image of the store, and the result of the run."""
    job, facts = work.job, journal.done()
    result = Result()
    if job.bundle.task == "segmentation":
        result.table = _table(work, [one for key, one in facts.items() if key.startswith("0/")])
        result.warnings = _doubts(work, result.table)
    names = {"restoration": work.volume.channel_names, "fusion": ("fused",)}.get(job.bundle.task, ("labels",))
    _describe(job, work.volume.with_data(_Grid(work), names), factors)
    return _opened(job, result)


def finished_result(job: Job, journal: Journal) -> Result:
    """The result of a run that is finished already."""
    journal.remove()
    return _opened(job, Result(warnings=[f"{job.target} was finished already: nothing was left to do."]))


def maker_of(target: str) -> str | None:
    """What a store that is whole says that it is the answer to; None where it does not say so."""
    import zarr

    attributes = dict(zarr.open_group(open_store(target), mode="r").attrs)
    said = attributes.get(_MAKER)
    of = said.get("of") if isinstance(said, dict) else None
    return of if isinstance(of, str) else None


class _Grid:
    """Stands for the values of a volume of which the grid alone is asked."""

    def __init__(self, work: Work):
        self.shape = (work.answer.channels, *work.volume.shape)


def _opened(job: Job, result: Result) -> Result:
    from napari_mamba import io

    volume = io.read(job.target)
    if job.bundle.task == "segmentation":
        result.labels = volume.with_data(volume.data, ("labels",))
    else:
        result.image = volume
    return result


def _table(work: Work, facts: Sequence[dict[str, Any]]) -> list[ClassRow]:
    classes = [c for c in work.job.bundle.classes if c.index != 0 or work.job.bundle.activation == "sigmoid"]
    channels = work.volume.channels
    voxels, sums = np.zeros(len(classes), np.int64), np.zeros((len(classes), channels))
    for fact in facts:
        if not fact:
            continue
        voxels += np.array(fact["voxels"])
        for k, values in enumerate(fact["sums"]):
            sums[k] += np.array(values or [0.0] * channels)
    rows, ml = [], voxel_ml(work.volume)
    for one, count, total in zip(classes, voxels.tolist(), sums, strict=True):
        means = tuple(float(s) / count for s in total) if count else ()
        rows.append(
            ClassRow(
                int(one.index),
                one.name,
                one.color,
                count,
                count * ml,
                means[0] if means else None,
                means,
                getattr(one, "code", ""),
                getattr(one, "laterality", ""),
            )
        )
    return rows


def _doubts(work: Work, table: Sequence[ClassRow]) -> list[str]:
    names = {int(c.index): c.name for c in work.job.bundle.classes}
    steps = getattr(work.job.bundle, "postprocessing", ())
    counts = {row.index: row.voxels for row in table}
    doubts = count_warnings(counts, work.volume.spacing.tolist(), names, steps)
    if not any(counts.values()):
        doubts = ["No voxel was labelled: check that the image shows what this bundle was made for."]
    return doubts


def _describe(job: Job, volume: Volume, factors: Sequence[Shape]) -> None:
    """Write the metadata that make an image of the store, at last."""
    import zarr

    from napari_mamba.io.formats.ome_zarr import metadata

    classes = job.bundle.classes if job.bundle.task == "segmentation" else ()
    name = volume.name or job.target.rstrip("/").rsplit("/", 1)[-1]
    if state_of(job.target) != "part":  # chunks since then were written where it was
        raise OutputError(f"{job.target} went away while it was written: remove what is left of it, and begin anew")
    with explained(job.target):
        group = zarr.open_group(open_store(job.target, read_only=False), mode="r+")
        facts = {**metadata(volume, name, classes, factors), _MAKER: {"of": job.of}}
        group.attrs.update(json.loads(json.dumps(facts)))
