"""Maps of a layer: its scan order, its hidden states, its tokens."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from napari_mamba.engine.progress.events import Progress
from napari_mamba.explain.layer_maps import components_basis, memory_mm, state_tile, tokens_way
from napari_mamba.explain.makers.work import Events, Work
from napari_mamba.explain.methods import order as orders
from napari_mamba.explain.methods import states
from napari_mamba.explain.recorded.tokens import unusual_tokens


def order(work: Work) -> None:
    """Each path: the rank of each voxel, the way in the world, and its numbers."""
    scan, grid = work.scan, work.scan.need_grid()
    for k in range(scan.directions) if work.direction is None else [work.direction]:
        way = tokens_way(scan, k)
        work.keep(f"order {k + 1}", orders.ranks(way, grid).astype(np.float32))
        work.found.paths[f"path {k + 1}"] = work.tile.world(way, grid)
        facts = orders.facts(way, grid)
        work.found.facts[f"path {k + 1}"] = {
            "neighbours": facts.neighbours, "worst": facts.worst, "stride": facts.stride, "jumps": facts.jumps,
        }  # fmt: skip


def neighbours(work: Work) -> None:
    """How far apart the paths tear neighbours."""
    scan, grid = work.scan, work.scan.need_grid()
    directions = range(scan.directions) if work.direction is None else [work.direction]
    each = [orders.neighbour_distance(orders.ranks(tokens_way(scan, k), grid)) for k in directions]
    work.keep("neighbours", np.minimum.reduce(each))  # a pair is near if one of the paths has it near


def state(work: Work, name: str) -> Events:
    """A map of the states over all tiles, blended."""
    subject, label = work.subject, work.scan.label
    basis = components_basis(work.scan.along(work.direction)) if name == "components" else None
    function = partial(state_tile, subject, label, name, work.direction, basis)
    for done, total, values in subject.walk(function):
        yield Progress(name, done, total)
        if work.cancel.is_set():
            return
        if values is not None:
            work.keep_whole(name, values)
    if name == "state":
        _curve(work)
    if name == "memory":
        _memory_facts(work)


def _curve(work: Work) -> None:
    path, row = work.scan.find(work.cell, work.direction)[0]
    steps, norms = states.state_along(path, row)
    work.found.curves["state"] = {"step": steps, "norm": norms, "at": np.array([int(path.steps[row])])}


def _memory_facts(work: Work) -> None:
    lengths, ways = [], []
    paths = work.scan.along(work.direction)
    for path in paths:
        tokens = states.memory_length(path).cpu().numpy()
        lengths.append(tokens)
        ways.append(memory_mm(work.tile, work.scan, path, tokens))
    every, mm = np.concatenate(lengths), np.concatenate(ways)
    work.found.facts["memory"] = {
        "tokens_median": float(np.median(every)),
        "mm_median": float(np.median(mm)),
        "mm_90": float(np.quantile(mm, 0.9)),
    }
    share = 1 / len({path.direction for path in paths})
    work.keep("memory mm", work.scan.map([torch.from_numpy(w) * share for w in ways], paths))


def tokens(work: Work) -> None:
    """The tokens' norms, and which of them are unusual where nothing is seen."""
    found = unusual_tokens(work.scan, work.tile.data)
    work.keep("tokens", found.norms)
    work.keep("tokens unusual", found.unusual.astype(np.float32))
    work.found.facts["unusual_tokens"] = int(found.unusual.sum())
    if found.sentence:
        work.found.sentences.append(found.sentence)
