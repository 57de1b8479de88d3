"""The film that a model goes through: a plain model of the layer, the bundle and what came of it. No Qt in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba.ui.film.layers import is_film, result_layers

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.run.process.outcome import Outcome

TASKS = ("segmentation", "restoration", "prediction")


@dataclass
class FilmModel:
    """A layer with time, and the bundle that goes through it.

    Attributes
    ----------
    bundles : list of Bundle
        Those that can: networks of films first.
    layer : Image or None
    bundle : Bundle or None
    ahead : int
        How many frames a prediction gives; 0: as many as the film has.
    """

    viewer: ViewerModel
    bundles: list[Bundle] = field(default_factory=list)
    layer: Layer | None = None
    bundle: Bundle | None = None
    ahead: int = 0
    message: str = ""
    kind: str = "hint"
    changed: ClassVar[Signal] = Signal()

    def __post_init__(self) -> None:
        self.offer(self.bundles)
        events = self.viewer.layers.events
        self._listened = (events.inserted, events.removed, events.renamed)
        for event in self._listened:
            event.connect(self._on_layers)
        self._on_layers()

    def offer(self, bundles: Sequence[Bundle]) -> None:
        """Offer those of these that go over a film; the chosen one stays where it is among them."""
        able = [one for one in bundles if one.task in TASKS and (one.tile.frames or _one_image(one))]
        self.bundles = sorted(able, key=lambda one: (not one.tile.frames, one.name))
        same = (one for one in self.bundles if self.bundle is not None and one.path == self.bundle.path)
        self.bundle = next(same, next(iter(self.bundles), None))
        self.changed.emit()

    @property
    def predicts(self) -> bool:
        """Whether the chosen model gives the frames after the last one."""
        return self.bundle is not None and self.bundle.task == "prediction"

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._listened:
            event.disconnect(self._on_layers)

    @property
    def films(self) -> list[Layer]:
        """What can be chosen, the uppermost first."""
        return [layer for layer in reversed(self.viewer.layers) if is_film(layer)]

    def _on_layers(self, event: Any = None) -> None:
        if self.layer not in self.films:
            self.layer = self.films[0] if self.films else None
        self.changed.emit()

    @property
    def problem(self) -> str:
        """Why nothing can be run now, in a sentence; empty if it can."""
        if self.bundle is None:
            return "No model that takes one image or a film is installed."
        if self.layer is None:
            return "Open a film: an image whose first axis is time."
        return ""

    def end(self, outcome: Outcome, layer: Layer, bundle: Bundle) -> None:
        """Take in how a run ended, and show what came of it."""
        if outcome.error:
            self.say(outcome.error, "error")
        elif outcome.cancelled:
            self.say("Cancelled. Nothing was added.")
        elif layer not in self.viewer.layers:
            self.say("The film was removed meanwhile. Nothing was added.", "warning")
        else:
            found: Any = outcome.result
            made = [self.viewer.add_layer(one) for one in result_layers(found, layer, bundle)]
            if bundle.task == "prediction" and made:  # which lie after the frame that is shown
                self.viewer.dims.set_point(0, float(made[0].data_to_world((0,) * made[0].ndim)[0]))
            self.layer = layer
            self.say("\n".join(["Done.", *found.warnings]), "warning" if found.warnings else "good")

    def say(self, text: str, kind: str = "hint") -> None:
        """Show a sentence."""
        self.message, self.kind = text, kind
        self.changed.emit()


def _one_image(bundle: Bundle) -> bool:
    """Whether a bundle takes one image, grey or in colour, as a frame of a layer is."""
    from napari_mamba.engine.checks import takes_rgb

    masks = any(channel.modality.upper() == "MASK" for channel in bundle.channels)
    return not masks and (len(bundle.channels) == 1 or takes_rgb(bundle))
