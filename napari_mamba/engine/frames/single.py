"""Each frame by itself: the run of one image, again and again, with one network that stays in memory."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.frames.result import FilmResult
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.run import run
from napari_mamba.io.moving.film import Film

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.context import NewArray
    from napari_mamba.engine.result import Result


def run_each(
    film: Film, bundle: Bundle, options: RunOptions, cancel: threading.Event, new_array: NewArray
) -> Generator[Progress, None, FilmResult]:
    """`run_film` of a bundle that sees one image; frames that show nothing are labelled as background."""
    result, told, began = FilmResult(), Told(film.count), perf_counter()
    for t in range(film.count):
        left = (perf_counter() - began) / t * (film.count - t) if t else None
        yield Progress("network", t, film.count, left)
        volume = film.frame(t)
        if is_blank(volume.data) and bundle.task == "segmentation":
            told.add(f"Frame {t + 1} shows nothing and was left empty.")
            if result.labels is not None:
                result.labels[t] = 0
            continue
        one = yield from quietly(run(volume, bundle, options, cancel))
        if one.cancelled or cancel.is_set():
            return FilmResult()
        _keep(result, t, one, film, new_array)
        for warning in one.warnings:
            told.add(warning)
        result.provenance = one.provenance
    yield Progress("network", film.count, film.count, 0.0)
    if result.labels is None and bundle.task == "segmentation":  # no frame shows anything
        first = film.frame(0)
        result.labels = np.zeros((film.count, *first.shape), np.uint8)
    result.warnings = told.sentences()
    return result


def _keep(result: FilmResult, t: int, one: Result, film: Film, new_array: NewArray) -> None:
    time = None if film.times is None else float(film.times[t])
    if one.labels is not None:
        labels = np.asarray(one.labels.data)[0]
        if result.labels is None:
            result.labels = new_array((film.count, *labels.shape), labels.dtype)
            result.labels[:t] = 0
        result.labels[t] = labels
        result.table += [
            {"frame": t, "time_ms": time, "index": r.index, "name": r.name, "voxels": r.voxels, "ml": r.ml}
            for r in one.table
        ]
    if one.image is not None:
        if result.image is None:
            result.image = new_array((film.count, *one.image.data.shape), np.float32)
        result.image[t] = one.image.data
    if one.scores is not None:
        result.scores.append(one.scores)


class Told:
    """Sentences of many frames, each once with how often it was said; those that differ in numbers alone are one.

    Examples
    --------
    >>> told = Told(3)
    >>> told.add("Seen at a distance of 8.7.")
    >>> told.add("Seen at a distance of 8.1.")
    >>> told.sentences()
    ['In 2 frames, such as: Seen at a distance of 8.7.']
    >>> told = Told(2, "phase")
    >>> told.add("It is blurred.")
    >>> told.sentences()
    ['In one phase: It is blurred.']
    """

    def __init__(self, frames: int, name: str = "frame") -> None:
        self.frames, self.name = frames, name
        self.said: dict[str, list[str]] = {}

    def add(self, sentence: str) -> None:
        """One frame's."""
        self.said.setdefault(re.sub(r"\d+(\.\d+)?", "#", sentence), []).append(sentence)

    def sentences(self) -> list[str]:
        """All of them."""
        return [self._said(texts) for texts in self.said.values()]

    def _said(self, texts: list[str]) -> str:
        text, count = texts[0], len(texts)
        if text.startswith(f"{self.name.capitalize()} "):
            return text if count == 1 else f"{text} The same holds for {count - 1} more."
        same = len(set(texts)) == 1
        if count == self.frames and same:
            return text
        frames = f"one {self.name}" if count == 1 else f"{'all' if count == self.frames else count} {self.name}s"
        return f"In {frames}{'' if same else ', such as'}: {text}"


def is_blank(data: Any) -> bool:
    """Whether a frame has one value everywhere, in each of its channels."""
    return all(channel.min() == channel.max() for channel in np.asarray(data))


def quietly(events: Generator[Progress, None, Any]) -> Generator[Progress, None, Any]:
    """A frame's run, of which only warnings are told: a step of the whole is a frame."""
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            return stop.value
        if event.warning:
            yield event
