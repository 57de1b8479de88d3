"""What `engine.checks` asks of an image, asked by one pass over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_mamba.engine.checks import (
    LOOKED_AT,
    check_channels,
    check_constant,
    check_span,
    finite_problem,
    finite_warning,
    grid_warnings,
    range_warnings,
)
from napari_mamba.engine.familiarity.judge import familiarity_of
from napari_mamba.engine.stored.reading.lazy import LazyImage, lazy
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.passes import Watch, blocks, sampled
from napari_mamba.io import doubts
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class _Finite:
    """NaN and infinity replaced, of a block."""

    value: float

    def __call__(self, block: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(block), block, np.asarray(self.value, block.dtype))


@dataclass
class _Seen:
    """One channel's values, as far as the checks ask."""

    low: float = np.inf
    high: float = -np.inf
    below: int = 0
    wrong: int = 0
    some: list[np.ndarray] = field(default_factory=list)

    def add(self, values: np.ndarray, sample: np.ndarray) -> None:
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            count = int(np.count_nonzero(finite))
            self.wrong += values.size - count
            values = values if count == values.size else values[finite]
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
            if self.low <= -500:
                self.below += int(np.count_nonzero(values <= -500))
        self.some.append(np.abs(sample[np.isfinite(sample)].astype(np.float64)))


def replaced(image: LazyImage, value: float | None) -> LazyImage:
    """The image, with `value` in the place of NaN and infinite ones."""
    return image if value is None or image.dtype.kind != "f" else image.map(_Finite(value))


def check_on_disk(
    volume: Volume, bundle: Any, replace_nonfinite: float | None, watch: Watch, found: dict[str, Any]
) -> list[str]:
    """Warnings about an image, and the range of its channels, as `found["range"]`; see `checks.load_checked`.

    Raises
    ------
    InputError
        As `load_checked` does, in its words.
    """
    if bundle.task not in ("segmentation", "restoration", "fusion"):
        raise NeedsMemory(f"{bundle.name} is for {bundle.task}, which is run in memory: crop the image if it is large")
    if any(channel.modality.upper() in ("MASK", "RTSTRUCT") for channel in bundle.channels):
        raise NeedsMemory(f"{bundle.name} takes masks, which are looked at in memory: crop the image if it is large")
    names, repeated = check_channels(volume, bundle)
    image = lazy(volume.data)
    seen = [_Seen() for _ in range(image.channels)]
    voxels = image.size // image.channels
    for box, block in blocks(image, watch):
        for one, channel in zip(seen, block, strict=True):
            one.add(channel, sampled(channel, box, image.shape[1:], voxels // LOOKED_AT + 1))
    wrong = sum(one.wrong for one in seen)
    if wrong and replace_nonfinite is None:
        raise finite_problem(wrong)
    warnings = [finite_warning(wrong, replace_nonfinite)] if wrong and replace_nonfinite is not None else []
    for one, name in zip(seen, names, strict=False):
        if wrong and replace_nonfinite is not None:
            one.low, one.high = min(one.low, replace_nonfinite), max(one.high, replace_nonfinite)
        check_span(np.concatenate(one.some), one.low, one.high)
        check_constant(one.low, one.high, name)
    if repeated:
        warnings.append(f"{bundle.name} takes colour images: the one channel was repeated as red, green and blue.")
    for one, wanted in zip(seen, bundle.channels, strict=False):
        warnings += range_warnings(one.low, one.high, one.below / voxels, wanted.name, wanted.modality, bundle)
    if familiarity_of(bundle) is not None:
        warnings.append(
            f"Whether this image is like those that {bundle.name} was made from was not looked at, since that takes "
            "all of it in memory: look at the result yourself."
        )
    found["range"] = [[one.low, one.high] for one in seen]
    return warnings + doubts(volume) + grid_warnings(volume)
