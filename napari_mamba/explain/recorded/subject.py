"""What is looked into: a network on a volume, and the way between the volume's voxels and the network's tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.engine.device import choose_device
from napari_mamba.engine.memory import available_bytes, is_out_of_memory
from napari_mamba.engine.plan import Plan
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.tiling.infer import Ensemble, predict_tiles
from napari_mamba.engine.tiling.tiles import Tiling
from napari_mamba.errors import InputError, OutOfMemoryError
from napari_mamba.explain.methods.field import FieldGraph
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.recording import Layer, LayerScan, layers, record
from napari_mamba.volume import Volume

Voxel = tuple[int, int, int]


@dataclass
class Tile:
    """One tile of the prepared image, as the network sees it.

    `start` is its first voxel in the padded image; `data` (1, C, *tile), without the first axis of a 2D network's.
    """

    subject: Subject
    start: Voxel
    data: Tensor

    @property
    def size(self) -> Voxel:
        return self.subject.tiling.tile

    @property
    def grid(self) -> tuple[int, ...]:
        """Its voxels, as the network has axes."""
        return tuple(self.data.shape[2:])

    def place_of(self, voxel: Sequence[float]) -> np.ndarray:
        """Where a voxel of the volume (z, y, x) lies in the tile, in voxels of it."""
        prepared = places.apply(self.subject.to_prepared, voxel)
        before = np.array([pad for pad, _ in self.subject.tiling.padding])
        return prepared + before - np.array(self.start)

    def cell_of(self, voxel: Sequence[float], grid: tuple[int, ...]) -> int:
        """The cell of a layer's grid in which a voxel of the volume lies."""
        return places.cell_at(self.place_of(voxel), places.three_dimensional(grid), self.size)

    def world(self, cells: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
        """The places of a grid's cells in the world, (N, 3): x, y, z in mm."""
        inside = places.centres(cells, places.three_dimensional(grid), self.size)
        before = np.array([pad for pad, _ in self.subject.tiling.padding])
        voxels = places.apply(np.linalg.inv(self.subject.to_prepared), inside + np.array(self.start) - before)
        return places.apply(self.subject.volume.affine, voxels)

    def voxels(self, cells: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
        """The places of a grid's cells as indices of the volume, (N, 3)."""
        return places.apply(np.linalg.inv(self.subject.volume.affine), self.world(cells, grid))

    def to_volume(self, values: np.ndarray) -> np.ndarray:
        """A map on the tile or on a layer's grid, ([K,] *grid), on the volume's own grid: (K, Z, Y, X), 0 elsewhere."""
        subject = self.subject
        dims = subject.plan.spatial_dims
        values = np.asarray(values, np.float32)
        values = values[None] if values.ndim == dims else values
        if dims == 2:
            values = values[:, None]
        whole = np.zeros((len(values), *subject.tiling.padded), np.float32)
        whole[(slice(None), *self.here)] = places.enlarge(values, self.size)
        return subject.from_padded(whole)

    @property
    def here(self) -> tuple[slice, ...]:
        """Its voxels in the padded image."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))


@dataclass
class Subject:
    """A network on a volume. Make it with `opening.subject_of` or `subject_of_network`.

    Attributes
    ----------
    volume : Volume
    network : nn.Module
        In evaluation mode, on `device`.
    prepared : Prepared
    plan : Plan
    task : str
    classes : list of (index, name)
    activation : str
    """

    volume: Volume
    network: nn.Module
    prepared: Prepared
    plan: Plan
    device: torch.device
    task: str = "segmentation"
    classes: list[tuple[int, str]] = field(default_factory=list)
    activation: str = "softmax"
    name: str = ""
    warnings: list[str] = field(default_factory=list)
    _kept: tuple[Any, LayerScan] | None = field(default=None, repr=False)
    _graph: tuple[Voxel, FieldGraph] | None = field(default=None, repr=False)

    @cached_property
    def tiling(self) -> Tiling:
        return self.plan.tiling(self.prepared.data.shape[1:])  # type: ignore[arg-type]

    @cached_property
    def to_prepared(self) -> np.ndarray:
        """The affine (4, 4) from an index of the volume to one of the prepared image."""
        return places.index_map(self.prepared, self.volume.shape)

    @cached_property
    def voxel_mm(self) -> np.ndarray:
        """Sides of a voxel of the prepared image in mm, (3,)."""
        return np.array(self.prepared.spacing, float)

    def voxel_of(self, world: Sequence[float]) -> Voxel:
        """The voxel of the volume nearest to a place in the world (x, y, z in mm); `InputError` outside of it."""
        index = places.apply(np.linalg.inv(self.volume.affine), np.asarray(world, float))
        return self.check_voxel(tuple(int(n) for n in np.round(index)), f"the point {_shown(world)} mm")

    def check_voxel(self, voxel: Sequence[int], called: str = "") -> Voxel:
        """The voxel, if the volume has it and the network sees it."""
        called = called or f"the voxel {_shown(voxel)}"
        shape = self.volume.shape
        if len(voxel) != 3 or any(not 0 <= v < n for v, n in zip(voxel, shape, strict=False)):
            raise InputError(f"{called} lies outside of the image, which has {_x(shape)} voxels (z, y, x)")
        place = places.apply(self.to_prepared, voxel)
        inside = zip(place, self.prepared.data.shape[1:], strict=True)
        if any(not -0.51 <= p <= n - 0.49 for p, n in inside):
            raise InputError(
                f"{called} lies outside of what the network sees of the image: choose one nearer its middle"
            )
        z, y, x = (int(v) for v in voxel)
        return z, y, x

    def tile_at(self, voxel: Sequence[int] | None = None) -> Tile:
        """The tile in whose middle a voxel of the volume lies most nearly; the image's middle one if none is given."""
        tiling = self.tiling
        before = np.array([pad for pad, _ in tiling.padding])
        if voxel is None:
            aim = np.array(tiling.padded) / 2
        else:
            aim = places.apply(self.to_prepared, self.check_voxel(voxel)) + before
        starts = np.array(tiling.starts)
        middle = starts + (np.array(tiling.tile) - 1) / 2
        inside = ((aim >= starts - 0.5) & (aim <= starts + np.array(tiling.tile) - 0.5)).all(axis=1)
        distance = np.abs((middle - aim) / np.array(tiling.tile)).max(axis=1) + 1e3 * ~inside
        return self.tile(tuple(int(n) for n in starts[int(np.argmin(distance))]))

    def tile(self, start: Sequence[int]) -> Tile:
        """The tile that begins at a voxel of the padded image."""
        z, y, x = start
        tz, ty, tx = self.tiling.tile
        data = self.tiling.pad(self.prepared.data)[None, :, z : z + tz, y : y + ty, x : x + tx]
        tensor = torch.from_numpy(np.ascontiguousarray(data)).to(self.device)
        return Tile(self, (z, y, x), tensor.squeeze(2) if self.plan.spatial_dims == 2 else tensor)

    @cached_property
    def layers(self) -> list[Layer]:
        """The network's scanning layers, in the order in which they run."""
        return layers(self.network, self.tile_at().data)

    def layer(self, name: str | None = None) -> str:
        """A layer's name, checked; the last one whose tokens are places if none is given."""
        known = [layer.name for layer in self.layers]
        if name is None:
            placed = [layer.name for layer in self.layers if layer.grid is not None]
            if not placed:
                raise InputError("this network has no scan over places of the image: choose another network")
            return placed[-1]
        if name.split("#")[0] not in known:
            raise InputError(
                f"{self.name or 'the network'} has no scanning layer {name!r}: its layers are {_list(known)}"
            )
        return name

    def scan(self, tile: Tile, name: str | None = None) -> LayerScan:
        """What a layer's scan did on a tile; the last one asked for is kept, so that asking again costs nothing."""
        key = (self.layer(name), tile.start)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # before the next one takes its memory
            heard = self._graph[1].scan(key[0]) if self._graph is not None and self._graph[0] == tile.start else None
            self._kept = (key, heard or record(self.network, tile.data, [key[0]])[0])
        return self._kept[1]

    def graph(self, tile: Tile, most: int | None = None) -> FieldGraph:
        """A tile's pass with what its gradients need; kept where memory allows, so that the next field is quick."""
        if self._graph is None or self._graph[0] != tile.start:
            self._graph = None  # before the next one takes its memory
            made = FieldGraph(self.network, tile.data, most)
            left = available_bytes()
            if self.device.type != "cpu" or left is None or made.bytes < left / 2:
                self._graph = (tile.start, made)
            return made
        return self._graph[1]

    def prepare(self, voxel: Sequence[int] | None = None) -> None:
        """Pass the tile about a voxel through the network once, so that every layer's scan and each field is at hand.

        Where memory has no room for that, nothing is kept, and each of them takes a pass of its own.
        """
        left = available_bytes()
        try:
            made = self.graph(self.tile_at(voxel), None if left is None else left // 3)
        except (OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OutOfMemoryError) and not is_out_of_memory(error):
                raise
            return
        if "layers" not in vars(self):  # a cached property: the pass has told them
            self.layers = made.layers

    def forget(self) -> None:
        """Give back what is kept for later maps, which may be a GiB."""
        self._kept = self._graph = None

    def from_padded(self, whole: np.ndarray) -> np.ndarray:
        """Maps (K, Z, Y, X) on the padded image, on the volume's own grid."""
        cut = (slice(a, a + n) for (a, _), n in zip(self.tiling.padding, self.tiling.image, strict=True))
        return self.prepared.restore_values(np.ascontiguousarray(whole[(slice(None), *cut)]))

    def everywhere(
        self, maps: Callable[[Tensor], Tensor], on_tile: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Maps of every tile, (B, K, *tile) from (B, C, *tile), blended, on the volume's grid: (K, Z, Y, X)."""
        found = None
        for done, total, values in self.walk(maps):
            found = values
            if on_tile is not None:
                on_tile(done, total)
        assert found is not None
        return found

    def walk(self, maps: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, int, np.ndarray | None]]:
        """`everywhere`, tile by tile: yields how many are done, of how many, and at last the maps."""
        from napari_mamba.engine.answers.image import ImageSink

        sink = ImageSink(self.prepared.data.shape[1:])  # type: ignore[arg-type]
        total = len(self.tiling.starts)
        for done, _ in enumerate(self.blend(maps, sink), start=1):
            yield done, total, None
        assert sink.image is not None
        yield total, total, self.prepared.restore_values(sink.image)

    def blend(self, function: Callable[[Tensor], Tensor], sink: Callable) -> Iterator[None]:
        """Hand a function of every tile, blended, to a sink on the prepared image's grid; yields once a tile."""
        looking = Ensemble(
            [_Function(function)], choose_device(str(self.device), "float32"), (), self.plan.spatial_dims
        )
        host = torch.device("cpu")
        return predict_tiles(self.prepared.data, looking, self.tiling, sink, batch_size=1, blend_device=host)


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _shown(numbers: Sequence[float]) -> str:
    return ", ".join(f"{n:g}" for n in numbers)


def _x(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
