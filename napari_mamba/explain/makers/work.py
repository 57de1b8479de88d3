"""What a request for maps shares: the tile, the layer's scan, what is explained, and what was found so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_mamba.engine.progress.events import Progress
from napari_mamba.explain.methods.attribution import Pick
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.recording import LayerScan
from napari_mamba.explain.recorded.subject import Subject, Tile, Voxel
from napari_mamba.explain.recorded.targets import Target, target_of
from napari_mamba.explain.recorded.whole import WholeTarget, whole_target
from napari_mamba.volume import Volume

Events = Generator[Progress, None, None]


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
        Numbers along a path: "step", and what stands at it; "at", the step of the voxel. Of deletion and insertion:
        "share" of the voxels, and for each method what is left of the answer.
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


@dataclass
class Wish:
    """What is asked for; see `maps.explaining`."""

    voxel: Voxel | None = None
    layer: str | None = None
    direction: int | None = None
    target: str | int | None = None
    regions: np.ndarray | None = None
    whole: bool = False
    growth: bool = True


class Work:
    """The maps of one request; what several need is made once."""

    def __init__(self, subject: Subject, wish: Wish, cancel: threading.Event):
        self.subject, self.wish, self.cancel = subject, wish, cancel
        z, y, x = (n // 2 for n in subject.volume.shape)
        self.voxel: Voxel = (z, y, x) if wish.voxel is None else subject.check_voxel(wish.voxel)
        self.tile: Tile = subject.tile_at(None if wish.voxel is None else self.voxel)
        self.direction = wish.direction
        self.found = Explained()
        self._scan: LayerScan | None = None
        self._target: Target | None = None
        self._whole: WholeTarget | None = None
        world = places.apply(subject.volume.affine, self.voxel)
        self.found.facts |= {"voxel": list(self.voxel), "world_mm": world.tolist(), "tile_start": list(self.tile.start)}
        self.found.sentences += subject.warnings

    @property
    def scan(self) -> LayerScan:
        """What the layer's scan did on the tile."""
        if self._scan is None:
            self._scan = self.subject.scan(self.tile, self.wish.layer)
            self.found.facts["layer"] = self._scan.label
            self.found.facts["grid"] = list(self._scan.need_grid())
            self._scan.along(self.direction)  # raises where there is no such direction
        return self._scan

    @property
    def target(self) -> Target:
        """The number that is explained on the tile."""
        if self._target is None:
            self._target = target_of(self.subject, self.tile, self.voxel, self.wish.target)
            self.found.facts["explained"] = self._target.title
        return self._target

    def whole_target(self) -> Generator[Progress, None, WholeTarget]:
        """The number that is explained of the whole volume, blended from its tiles."""
        if self._whole is None:
            self._whole = yield from whole_target(self.subject, self.voxel, self.wish.target)
            self.found.facts["explained"] = self._whole.title
            self.found.facts["tiles"] = len(self._whole.parts)
        return self._whole

    @property
    def whole(self) -> bool:
        """Whether the answer blended from all tiles is explained, and there are several."""
        return self.wish.whole and len(self.subject.tiling.starts) > 1

    def parts(self) -> Generator[Progress, None, list[tuple[Tile, Pick]]]:
        """The tiles that have a part in what is explained, each with its number: they sum to it."""
        if self.whole:
            return (yield from self.whole_target()).parts
        return [(self.tile, self.target.pick)]

    def summed(
        self, name: str, one: Callable[[Tile, Pick], np.ndarray]
    ) -> Generator[Progress, None, np.ndarray | None]:
        """The sum of the parts' maps (of a tile or of a layer's grid) on the padded image; None where cancelled."""
        subject, parts = self.subject, (yield from self.parts())
        total = np.zeros(subject.tiling.padded, np.float32)
        for i, (tile, pick) in enumerate(parts):
            yield Progress(name, i, len(parts))
            if self.cancel.is_set():
                return None
            found = one(tile, pick)
            found = found[None] if subject.plan.spatial_dims == 2 else found
            total[tile.here] += places.enlarge(found[None], tile.size)[0]
        return total

    def keep_padded(self, name: str, values: np.ndarray) -> None:
        """Keep a map (Z, Y, X) of the padded image under a name."""
        self.keep_whole(name, self.subject.from_padded(values[None]))

    @property
    def cell(self) -> int:
        """The cell of the layer's grid in which the voxel lies."""
        return self.tile.cell_of(self.voxel, self.scan.need_grid())

    def keep(self, name: str, values: np.ndarray) -> None:
        """Keep a map of the tile under a name."""
        self.keep_whole(name, self.tile.to_volume(values))

    def keep_whole(self, name: str, whole: np.ndarray) -> None:
        """Keep a map (K, Z, Y, X) of the whole volume under a name."""
        names = (name,) if len(whole) == 1 else tuple(f"{name} {i + 1}" for i in range(len(whole)))
        self.found.volumes[name] = self.subject.volume.with_data(whole, names)
