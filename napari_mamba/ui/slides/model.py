"""The slide that is scored: a plain model of its bag, the bundle, the thumbnail and what came of it. No Qt in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.slides.layers import downsample_of, is_thumbnail, patches_layer

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.slides.result import SlideResult
    from napari_mamba.slides.bag import Bag
    from napari_mamba.ui.run.process.outcome import Outcome

SHOWN = 20
"""Patches in the table: those with most attention."""


@dataclass
class SlideModel:
    """A bag of features, what scores it, and over which picture its patches are drawn.

    Attributes
    ----------
    bag : Bag or None
    bundle : Bundle or None
    thumbnail : Image or None
    downsample : float
        Pixels of the slide's finest level for one of the thumbnail's.
    result : SlideResult or None
    layer : Points or None
        Its patches.
    """

    viewer: ViewerModel
    bundles: list[Bundle] = field(default_factory=list)
    bag: Bag | None = None
    bundle: Bundle | None = None
    thumbnail: Layer | None = None
    downsample: float = 1.0
    result: SlideResult | None = None
    layer: Any = None
    message: str = ""
    kind: str = "hint"
    changed: ClassVar[Signal] = Signal()

    def __post_init__(self) -> None:
        events = self.viewer.layers.events
        self._listened = (events.inserted, events.removed, events.renamed)
        for event in self._listened:
            event.connect(self._on_layers)
        self.offer(self.bundles)
        self._on_layers()

    def offer(self, bundles: Sequence[Bundle]) -> None:
        """Offer those of these that score slides; the chosen one stays where it is among them."""
        self.bundles = [one for one in bundles if one.task == "slide"]
        same = (one for one in self.bundles if self.bundle is not None and one.path == self.bundle.path)
        self.bundle = next(same, next(iter(self.bundles), None))
        self.changed.emit()

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._listened:
            event.disconnect(self._on_layers)

    def _on_layers(self, event: Any = None) -> None:
        pictures = self.thumbnails
        if self.thumbnail not in pictures:
            self.choose_thumbnail(pictures[0] if pictures else None)
        if self.layer is not None and self.layer not in self.viewer.layers:
            self.layer = None
        self.changed.emit()

    @property
    def thumbnails(self) -> list[Layer]:
        """Pictures over which patches can be drawn, the uppermost first."""
        return [layer for layer in reversed(self.viewer.layers) if is_thumbnail(layer)]

    def choose_thumbnail(self, layer: Layer | None) -> None:
        """Another picture, and a guess of how much smaller than the slide it is."""
        self.thumbnail = layer
        self.downsample = downsample_of(self.bag, layer) if self.bag is not None else 1.0
        self.changed.emit()

    def take(self, bag: Bag) -> None:
        """Another slide; what was scored before is forgotten."""
        self.bag, self.result, self.layer, self.message = bag, None, None, ""
        self.downsample = downsample_of(bag, self.thumbnail)
        self.changed.emit()

    @property
    def problem(self) -> str:
        """Why nothing can be scored now, in a sentence; empty if it can."""
        if self.bundle is None:
            return "No model for slides is installed: import one with the command napari-mamba import, or in Models."
        if self.bag is None:
            return "Open a slide's features: an HDF5 file as CLAM writes it, or .pt or .npy."
        try:
            from napari_mamba.engine.slides.run import check_slide

            check_slide(self.bag, self.bundle)
        except NapariMambaError as error:
            return sentence(str(error))
        return ""

    def end(self, outcome: Outcome) -> None:
        """Take in how a run ended, and show its patches."""
        if outcome.error:
            self.say(outcome.error, "error")
        elif outcome.cancelled or self.bag is None:
            self.say("Cancelled. Nothing was added.")
        else:
            found: Any = outcome.result
            self.result = found
            self.say("\n".join(found.warnings) or "Done.", "warning" if found.warnings else "good")
            self.show()

    def show(self) -> None:
        """The patches as a layer, in the place of the one before."""
        if self.bag is None or self.result is None or self.result.attention is None:
            return
        if self.bag.coordinates is None:
            self.say("The file has no coordinates: scores and table are there, but no squares.", "warning")
            return
        before = self.layer
        layer = patches_layer(self.bag, self.result.attention, self.bundle, self.thumbnail, self.downsample)
        if before is not None and before in self.viewer.layers:
            self.viewer.layers.remove(before)
        self.layer = self.viewer.add_layer(layer)
        self.changed.emit()

    def scores(self) -> list[tuple[str, str]]:
        """Name and number of each class; of survival also the chance to outlive each interval."""
        if self.result is None:
            return []
        rows = [(name, f"{value:.3f}") for name, value in self.result.scores.items()]
        lasting = self.result.survival
        return rows + [(f"alive after {name}", f"{p:.3f}") for (name, _), p in zip(rows, lasting, strict=False)]

    def patches(self) -> list[tuple[str, str, str, str]]:
        """Patches with most attention: number, x, y, attention."""
        if self.result is None or self.result.attention is None or self.bag is None:
            return []
        attention, where = self.result.attention, self.bag.coordinates
        first = np.argsort(-attention, kind="stable")[:SHOWN]
        return [
            (str(n), *(("", "") if where is None else map(str, where[n].tolist())), f"{attention[n]:.3g}")  # type: ignore[misc]
            for n in first.tolist()
        ]

    def look_at(self, patch: int) -> None:
        """Bring a patch to the middle of the view, and select it."""
        if self.layer is None or self.layer not in self.viewer.layers:
            return
        centre = self.layer.data_to_world(self.layer.data[patch])
        self.viewer.scene.camera.center = (0.0, *centre)[-3:]
        self.layer.selected_data = {patch}

    def save(self, path: Path) -> None:
        """Write the attention; says where, or why not."""
        from napari_mamba.slides.report import write

        if self.bag is None or self.result is None or self.result.attention is None:
            return
        try:
            self.say(f"Saved {write(self.bag, self.result.attention, path)}.", "good")
        except NapariMambaError as error:
            self.say(sentence(str(error)), "error")

    def say(self, text: str, kind: str = "hint") -> None:
        """Show a sentence."""
        self.message, self.kind = text, kind
        self.changed.emit()
