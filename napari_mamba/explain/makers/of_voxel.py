"""Maps of a voxel: its attention, and the receptive field."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from napari_mamba.engine.progress.events import Progress
from napari_mamba.explain.makers.work import Events, Work
from napari_mamba.explain.methods import field as fields
from napari_mamba.explain.methods import rollout as rolling
from napari_mamba.explain.methods.attention import attention_maps
from napari_mamba.explain.methods.wider import norm_before, unified_map
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.recording import record


def attention(work: Work) -> None:
    """What the voxel drew from in the layer, and what drew from it."""
    found = attention_maps(work.scan, work.cell, work.direction)
    for side in ("drawn", "given", "contribution"):
        work.keep(f"attention {side}", found[side])


def unified(work: Work) -> None:
    """The same with convolution, gate and, where there is one, the norm before the layer."""
    scale = norm_before(work.subject.network, work.tile.data, work.scan)
    work.keep("unified", unified_map(work.scan, work.cell, work.direction, scale))
    work.found.facts["unified"] = {"norm": scale is not None}


def rollout(work: Work) -> Events:
    """The same multiplied over all layers up to this one."""
    subject, last = work.subject, work.scan.name
    names = [layer.name for layer in subject.layers if layer.grid is not None]
    names = names[: names.index(last) + 1]
    scans = []
    for i, name in enumerate(names):
        scans += record(subject.network, work.tile.data, [name])
        yield Progress("rollout", i + 1, len(names))
        if work.cancel.is_set():
            return
    found = rolling.rollout_of(scans, work.cell)
    work.keep("rollout", found.map)
    work.found.facts["rollout"] = {"layers": names, "bound": found.bound}
    if found.bound:
        work.found.sentences.append(rolling.BOUND)


def field(work: Work) -> Events:
    """Which voxels the answer at the voxel depends on, and, where asked for, how that grows layer by layer."""
    subject, tile = work.subject, work.tile
    place = tile.place_of(work.voxel)

    def pick(output: Tensor) -> Tensor:
        if output.ndim == 2:
            return output.square().sum()
        cell = places.cell_at(place, places.three_dimensional(tuple(output.shape[2:])), tile.size)
        return output[0].flatten(1)[:, cell].square().sum()

    graph = subject.graph(tile)
    answer = graph.answer(pick).cpu().numpy()
    work.keep("field", answer)
    rows = []
    names = [layer.name for layer in subject.layers if layer.grid is not None] if work.wish.growth else []
    for i, name in enumerate(names):
        yield Progress("field", i + 1, len(names) + 1)
        if work.cancel.is_set():
            return
        rows.append((name, graph.layer(name, partial(tile.cell_of, work.voxel)).cpu().numpy()))
    spacing, at = subject.voxel_mm[-answer.ndim :], place[-answer.ndim :]
    table = [(name, fields.reach(one, at, spacing)) for name, one in [*rows, ("the answer", answer)]]
    work.found.facts["field"] = [{"layer": name, "half_mm": r[0], "most_mm": r[1]} for name, r in table]
