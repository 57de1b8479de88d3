"""What every kind of answer is: which passes it takes, what their slices go into, what becomes of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_mamba.engine.context import Context
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.infer import Ensemble, predict_tiles
from napari_mamba.engine.tiling.views import count_passes, infer_views


class Answer(ABC):
    """One kind of answer, made for one run.

    Attributes
    ----------
    context : Context
        The run: `finish` fills its `result`.
    entropy : str
        The activation whose entropy the network's passes append as a channel; "" for none.
    wants_spread : bool
        Whether the passes append the standard deviation over mirrored copies and members.
    imports : tuple of str
        Modules that `finish` will import: a new process has it done while the network runs.
    """

    entropy: str = ""
    wants_spread: bool = False
    imports: tuple[str, ...] = ()

    def __init__(self, context: Context):
        self.context = context

    @abstractmethod
    def new_sink(self, prepared: Prepared) -> Any:
        """What the blended slices of one attempt go into; made anew where an attempt fails."""

    def passes(self, data: np.ndarray, ensemble: Ensemble, sink: Any) -> tuple[Iterator[None], int]:
        """The passes of one attempt over `data` (C, Z, Y, X), which fill `sink`, and how many there are."""
        plan = self.context.plan
        size = plan.batch_size
        if self.context.options.axis == "all":
            total = count_passes(data, ensemble, plan, lambda tiles: len(list(tiles.batches(size))))
            return infer_views(data, ensemble, plan, sink, self.entropy), total
        tiling = plan.tiling(data.shape[1:])  # type: ignore[arg-type]
        passes = predict_tiles(data, ensemble, tiling, sink, batch_size=size, blend_device=plan.blend_device)
        return passes, len(list(tiling.batches(size))) * ensemble.passes

    @abstractmethod
    def finish(self, prepared: Prepared, sink: Any, ensemble: Ensemble) -> Events:
        """Bring what the sink holds back to the input's grid, and into the run's result."""
