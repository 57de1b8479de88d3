"""Every map by its name, on a volume's own grid: what the command writes and the widget shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba.engine.memory import is_out_of_memory, require
from napari_mamba.engine.progress.events import Progress
from napari_mamba.errors import InputError, OutOfMemoryError
from napari_mamba.explain.kinds import BLOCKS, MAPS, STATE_MAPS
from napari_mamba.explain.layer_maps import components_basis, memory_mm, state_tile, tokens_way
from napari_mamba.explain.methods import field as fields
from napari_mamba.explain.methods import order, states
from napari_mamba.explain.methods.attention import attention_maps
from napari_mamba.explain.methods.attribution import relevance
from napari_mamba.explain.methods.perturbation import occlude
from napari_mamba.explain.methods.wider import gradient_weighted, rollout, unified_map
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.recording import LayerScan
from napari_mamba.explain.recorded.subject import Subject, Tile, Voxel
from napari_mamba.explain.recorded.targets import Target, target_of
from napari_mamba.explain.recorded.tokens import unusual_tokens
from napari_mamba.volume import Volume


@dataclass
class Explained:
    """Maps and what belongs to them.

    Attributes
    ----------
    volumes : dict of str to Volume
        On the input's own grid, float32.
    paths : dict of str to (L, 3) float64
        Ways through the tokens, as world coordinates x, y, z in mm, one a direction.
    curves : dict of str to dict of str to array
        Numbers along a path: "step", and what stands at it.
    facts : dict
        Layer, voxel, class, tile, numbers found; JSON can hold it.
    sentences : list of str
        What to beware of.
    """

    volumes: dict[str, Volume] = field(default_factory=dict)
    paths: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    cancelled: bool = False


Events = Generator[Progress, None, None]


def explain(
    subject: Subject,
    what: Sequence[str],
    voxel: Voxel | None = None,
    layer: str | None = None,
    direction: int | None = None,
    target: str | int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Explained:
    """Make maps; see `explaining`, which this drains.

    Examples
    --------
    >>> subject = subject_of(volume, bundle)  # doctest: +SKIP
    >>> explain(subject, ["state", "attention"], voxel=(20, 30, 20)).volumes  # doctest: +SKIP
    """
    events = explaining(subject, what, voxel, layer, direction, target)
    while True:
        try:
            progress = next(events)
        except StopIteration as end:
            return end.value
        if on_progress is not None:
            on_progress(progress)


def explaining(
    subject: Subject,
    what: Sequence[str],
    voxel: Voxel | None = None,
    layer: str | None = None,
    direction: int | None = None,
    target: str | int | None = None,
    cancel: threading.Event | None = None,
) -> Generator[Progress, None, Explained]:
    """Make maps one after the other.

    Parameters
    ----------
    subject : Subject
    what : sequence of str
        Keys of `MAPS`.
    voxel : (z, y, x), optional
        Of the volume; its middle if not given. Maps of a voxel are of it; those of a class are made on the tile about
        it.
    layer : str, optional
        Of `subject.layers`; the last one whose tokens are places if not given.
    direction : int, optional
        Which of the layer's paths, from 0; all if not given.
    target : str or int, optional
        The class to explain; see `target_of`.
    cancel : threading.Event, optional
        Looked at after each step.

    Raises
    ------
    InputError
        For maps, voxels, layers, directions or classes that do not exist.
    OutOfMemoryError
        If a map does not fit into memory.
    """
    unknown = [name for name in what if name not in MAPS]
    if unknown:
        raise InputError(f"there is no map {unknown[0]!r}: choose among {', '.join(MAPS)}")
    work = _Work(subject, voxel, layer, direction, target, cancel or threading.Event())
    try:
        for name in what:
            require(4 * int(np.prod(subject.volume.shape)) * (3 if name == "components" else 1))
            yield from work.make(name)
            if work.cancel.is_set():
                break
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            "the map does not fit into memory: choose a deeper layer, a smaller tile, or close other programs"
        ) from error
    work.found.cancelled = work.cancel.is_set()
    return work.found


class _Work:
    """The maps of one request; what several need is made once."""

    def __init__(self, subject: Subject, voxel, layer, direction, target, cancel):
        self.subject, self.cancel = subject, cancel
        given = voxel is not None
        z, y, x = (n // 2 for n in subject.volume.shape)
        self.voxel: Voxel = subject.check_voxel(voxel) if given else (z, y, x)
        self.tile: Tile = subject.tile_at(self.voxel if given else None)
        self.layer, self.direction, self.wanted = layer, direction, target
        self.found = Explained()
        self._scan: LayerScan | None = None
        self._target: Target | None = None
        world = places.apply(subject.volume.affine, self.voxel)
        self.found.facts |= {"voxel": list(self.voxel), "world_mm": world.tolist(), "tile_start": list(self.tile.start)}
        self.found.sentences += subject.warnings

    @property
    def scan(self) -> LayerScan:
        if self._scan is None:
            self._scan = self.subject.scan(self.tile, self.layer)
            self.found.facts["layer"] = self._scan.label
            self.found.facts["grid"] = list(self._scan.need_grid())
            self._scan.along(self.direction)  # raises where there is no such direction
        return self._scan

    @property
    def target(self) -> Target:
        if self._target is None:
            self._target = target_of(self.subject, self.tile, self.voxel, self.wanted)
            self.found.facts["explained"] = self._target.title
        return self._target

    @property
    def cell(self) -> int:
        return self.tile.cell_of(self.voxel, self.scan.need_grid())

    def make(self, name: str) -> Events:
        yield Progress(name, 0, 1)
        own = getattr(self, f"_{name}", None)
        if name in STATE_MAPS or name == "components":
            yield from self._states(name)
        elif name in ("relevance", "gradient", "integrated"):
            self._relevance_by(name)
        else:
            assert own is not None
            events = own()
            if events is not None:
                yield from events
        yield Progress(name, 1, 1)

    def keep(self, name: str, values: np.ndarray, on_tile: bool = True) -> None:
        """Keep a map of the tile, or of the whole volume, under a name."""
        whole = self.tile.to_volume(values) if on_tile else values
        names = (name,) if len(whole) == 1 else tuple(f"{name} {i + 1}" for i in range(len(whole)))
        self.found.volumes[name] = self.subject.volume.with_data(whole, names)

    # ---- of the order

    def _order(self) -> None:
        scan, grid = self.scan, self.scan.need_grid()
        for k in range(scan.directions) if self.direction is None else [self.direction]:
            way = tokens_way(scan, k)
            self.keep(f"order {k + 1}", order.ranks(way, grid).astype(np.float32))
            self.found.paths[f"path {k + 1}"] = self.tile.world(way, grid)
            facts = order.facts(way, grid)
            self.found.facts[f"path {k + 1}"] = {
                "neighbours": facts.neighbours, "worst": facts.worst, "stride": facts.stride, "jumps": facts.jumps,
            }  # fmt: skip

    def _neighbours(self) -> None:
        scan, grid = self.scan, self.scan.need_grid()
        directions = range(scan.directions) if self.direction is None else [self.direction]
        each = [order.neighbour_distance(order.ranks(tokens_way(scan, k), grid)) for k in directions]
        self.keep("neighbours", np.minimum.reduce(each))  # a pair is near if one of the paths has it near

    # ---- of the states

    def _states(self, name: str) -> Events:
        subject, label = self.subject, self.scan.label
        basis = None
        if name == "components":
            basis = components_basis(self.scan.along(self.direction))
        function = partial(state_tile, subject, label, name, self.direction, basis)
        for done, total, values in subject.walk(function):
            yield Progress(name, done, total)
            if self.cancel.is_set():
                return
            if values is not None:
                self.keep(name, values, on_tile=False)
        if name == "state":
            self._curve()
        if name == "memory":
            self._memory_facts()

    def _curve(self) -> None:
        path, row = self.scan.find(self.cell, self.direction)[0]
        steps, norms = states.state_along(path, row)
        self.found.curves["state"] = {"step": steps, "norm": norms, "at": np.array([int(path.steps[row])])}

    def _memory_facts(self) -> None:
        lengths, ways = [], []
        for path in self.scan.along(self.direction):
            tokens = states.memory_length(path).cpu().numpy()
            lengths.append(tokens)
            ways.append(memory_mm(self.tile, self.scan, path, tokens))
        every, mm = np.concatenate(lengths), np.concatenate(ways)
        self.found.facts["memory"] = {
            "tokens_median": float(np.median(every)),
            "mm_median": float(np.median(mm)),
            "mm_90": float(np.quantile(mm, 0.9)),
        }
        rows = [torch.from_numpy(w) for w in ways]
        share = 1 / len({path.direction for path in self.scan.along(self.direction)})
        self.keep("memory mm", self.scan.map([w * share for w in rows], self.scan.along(self.direction)))

    def _tokens(self) -> None:
        found = unusual_tokens(self.scan, self.tile.data)
        self.keep("tokens", found.norms)
        self.keep("tokens unusual", found.unusual.astype(np.float32))
        self.found.facts["unusual_tokens"] = int(found.unusual.sum())
        if found.sentence:
            self.found.sentences.append(found.sentence)

    # ---- of a voxel

    def _attention(self) -> None:
        found = attention_maps(self.scan, self.cell, self.direction)
        self.keep("attention drawn", found["drawn"])
        self.keep("attention given", found["given"])
        self.keep("attention contribution", found["contribution"])

    def _unified(self) -> None:
        self.keep("unified", unified_map(self.scan, self.cell, self.direction))

    def _rollout(self) -> None:
        grid = self.scan.need_grid()
        names = [layer.name for layer in self.subject.layers if layer.grid == grid]
        self.keep("rollout", rollout(self.subject.network, self.tile.data, self.cell, names))

    def _field(self) -> Events:
        subject, tile = self.subject, self.tile
        place = tile.place_of(self.voxel)

        def pick(output: Tensor) -> Tensor:
            if output.ndim == 2:
                return output.square().sum()
            cell = places.cell_at(place, places.three_dimensional(tuple(output.shape[2:])), tile.size)
            return output[0].flatten(1)[:, cell].square().sum()

        answer = fields.receptive_field(subject.network, tile.data, pick).cpu().numpy()
        self.keep("field", answer)
        rows = []
        placed = [layer for layer in subject.layers if layer.grid is not None]
        for i, layer in enumerate(placed):
            one = fields.layer_field(subject.network, tile.data, layer.name, partial(tile.cell_of, self.voxel))
            rows.append((layer.name, one.cpu().numpy()))
            yield Progress("field", i + 1, len(placed))
            if self.cancel.is_set():
                return
        spacing, at = subject.voxel_mm[-answer.ndim :], place[-answer.ndim :]
        table = [(name, fields.reach(one, at, spacing)) for name, one in [*rows, ("the answer", answer)]]
        self.found.facts["field"] = [{"layer": name, "half_mm": r[0], "most_mm": r[1]} for name, r in table]

    # ---- of a class

    def _relevance_by(self, method: str) -> None:
        found = relevance(self.subject.network, self.tile.data, self.target.pick, method)
        self.keep(method, found.map[0].sum(0).cpu().numpy())
        self.found.facts[method] = {
            "answer": found.answer, "sum": found.sum, "constants": found.constants, "missing": found.missing,
        }  # fmt: skip

    def _class_attention(self) -> None:
        name = self.subject.layer(self.layer)
        self.keep("class_attention", gradient_weighted(self.subject.network, self.tile.data, self.target.pick, name))

    def _occlusion(self) -> Events:
        block = tuple(max(1, -(-n // BLOCKS[len(self.tile.grid)])) for n in self.tile.grid)
        found = None
        for done, total, one in occlude(self.subject.network, self.tile.data, self.target.pick, block):
            yield Progress("occlusion", done, total)
            if self.cancel.is_set():
                return
            found = one
        assert found is not None
        self.keep("occlusion", found)
