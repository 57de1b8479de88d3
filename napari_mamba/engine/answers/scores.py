"""Scores of the whole image: a probability for each class, and where the evidence for the likeliest one lies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from napari_mamba.bundles.guards.columns import encoded
from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.image import ImageSink
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import Context
from napari_mamba.engine.familiarity.judge import Judgement
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.tiling.activation_map import activation_map_passes
from napari_mamba.engine.tiling.infer import Ensemble, probabilities_of, score_tiles
from napari_mamba.engine.tiling.views import axis_first, count_passes
from napari_mamba.errors import BundleError

NONE = "none of these"
"""What a classifier answers beside its classes where the image is of another kind than those it learnt from."""


def with_none(scores: Mapping[str, float], familiar: Sequence[Judgement]) -> dict[str, float]:
    """Scores with "none of these" before them: 0 for a familiar image, else from one half up to 1, of which the rest
    is left to the classes.

    >>> with_none({"a": 0.8, "b": 0.2}, [Judgement("image", 4.0, 2.0)])
    {'none of these': 0.875, 'a': 0.1, 'b': 0.025}
    """
    farthest = max((one.distance / one.limit for one in familiar), default=0.0)
    none = 1 - 0.5 / farthest**2 if farthest > 1 else 0.0
    return {NONE: none, **{name: score * (1 - none) for name, score in scores.items()}}


@answers("classification")
class ScoresAnswer(Answer):
    """`Result.scores`, the mean over tiles and members; with uncertainty asked for also an activation map.

    Of bundles with `columns` the networks are given the row of the run's options first.
    """

    def __init__(self, context: Context):
        super().__init__(context)
        columns = getattr(context.bundle, "columns", ())
        self.row = encoded(context.bundle, context.options.row) if columns else None

    def new_sink(self, prepared: Prepared) -> list[torch.Tensor]:
        return []

    def passes(self, data: np.ndarray, ensemble: Ensemble, sink: Any) -> tuple[Iterator[None], int]:
        plan = self.context.plan
        for network in ensemble.networks if self.row is not None else ():
            network.take_row(*self.row)  # type: ignore[operator, misc]
        if self.context.options.axis != "all":
            tiling = plan.tiling(data.shape[1:])  # type: ignore[arg-type]
            return score_tiles(data, ensemble, tiling, sink), len(tiling.starts) * ensemble.passes
        views = [np.ascontiguousarray(axis_first(data, axis)) for axis in range(3)]
        scored = (score_tiles(view, ensemble, plan.tiling(view.shape[1:]), sink) for view in views)
        total = count_passes(data, ensemble, plan, lambda tiles: len(tiles.starts))
        return itertools.chain.from_iterable(scored), total

    def finish(self, prepared: Prepared, sink: list[torch.Tensor], ensemble: Ensemble) -> Events:
        bundle, result = self.context.bundle, self.context.result
        scores = torch.stack(sink)
        if scores.shape[1] != len(bundle.classes):
            raise BundleError(f"the network answers {scores.shape[1]} classes, the bundle names another number")
        scores = probabilities_of(scores, bundle.activation)
        result.scores = dict(zip([c.name for c in bundle.classes], scores.mean(0).tolist(), strict=True))
        if self.context.options.uncertainty:
            yield from self._activation_map(prepared, ensemble, result.scores)
        if self.context.familiar:
            result.scores = with_none(result.scores, self.context.familiar)

    def _activation_map(self, prepared: Prepared, ensemble: Ensemble, scores: dict[str, float]) -> Events:
        """Where in the image the evidence for the likeliest class lies, as `Result.extra["activation_map"]`."""
        context = self.context
        if not all(hasattr(network, "evidence") for network in ensemble.networks) or context.plan.spatial_dims == 2:
            sentence = f"{context.bundle.name} has no class activation map: its network does not support one."
            yield from context.report.warn("network", 1, 1, [sentence])
            return
        likeliest = max(scores, key=scores.__getitem__)
        sink = ImageSink(prepared.data.shape[1:])  # type: ignore[arg-type]
        relative = context.bundle.activation == "softmax"
        yield from context.report.follow(*activation_map_passes(prepared.data, ensemble, context.plan, sink, relative))
        context.report.record.start_stage("restoring")
        k = list(scores).index(likeliest)
        evidence = prepared.restore_values(sink.image[k : k + 1])
        context.result.extra["activation_map"] = context.volume.with_data(evidence, (f"evidence for {likeliest}",))
