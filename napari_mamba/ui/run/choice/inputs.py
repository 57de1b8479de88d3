"""Which layers a run takes: a plain model of the choice, in step with a viewer's layers. No Qt in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba.ui.layers import COLOURS, KEY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Channel

SELECTED = "selected"
"""In a layer's place: the one that is active in the viewer's list, whichever that is when the run starts."""
PICTURE = "colour picture"
"""The one input of a model of colours, where a colour layer is open."""
EACH_SELECTED = "each selected"
"""In a layer's place: every layer that is selected in the viewer's list, one run each."""


@dataclass
class Inputs:
    """The layer of each channel of a model.

    What a user chose stays chosen until its layer is removed: neither another model, nor a new layer, nor a finished
    run moves it. Models of masks, of colours and of images keep a choice each.

    Parameters
    ----------
    viewer : napari viewer model

    Attributes
    ----------
    channels : tuple of Channel
        The model's.
    layers : tuple of layers
        What can be chosen, the uppermost first. Maps of this plugin (uncertainty, evidence) are never among them.
    chosen : list of layer, `SELECTED`, `EACH_SELECTED` or None
        One a channel.
    """

    viewer: ViewerModel
    channels: tuple[Channel, ...] = ()
    layers: tuple[Layer, ...] = ()
    chosen: list[Any] = field(default_factory=list)
    changed: ClassVar[Signal] = Signal()
    """Another layer is chosen, or there are other layers to choose from."""

    def __post_init__(self) -> None:
        self._kept: dict[str, list[Any]] = {"mask": [], "picture": [], "image": []}
        self._of_model = tuple(self.channels)
        self._shown: Any = None
        self._by_hand: list[Any] = []
        events = self.viewer.layers.events
        self._listened = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._listened:
            event.connect(self._on_layers)
        self.viewer.layers.selection.events.changed.connect(self._on_selection)
        self.refresh()

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._listened:
            event.disconnect(self._on_layers)
        self.viewer.layers.selection.events.changed.disconnect(self._on_selection)

    # ---- choosing

    @property
    def masks(self) -> bool:
        """Whether the model wants a mask, so that labels can be chosen."""
        return any(channel.modality.upper() == "MASK" for channel in self.channels)

    @property
    def _kind(self) -> str:
        """Models of masks, of colours and of images keep a choice each."""
        if self.masks:
            return "mask"
        return "picture" if [channel.name for channel in self.channels] == [PICTURE] else "image"

    def set_channels(self, channels: Sequence[Channel]) -> None:
        """Another model: its channels take over what was chosen, as far as there are as many.

        Of several channels, what was only suggested gives way to a layer that carries the channel's name.
        """
        other = [channel.name for channel in channels] != [channel.name for channel in self._of_model]
        self._of_model = tuple(channels)
        if other and len(channels) > 1:
            self._forget_misplaced([channel.name for channel in channels])
        self.refresh()

    def _forget_misplaced(self, names: Sequence[str]) -> None:
        kept = self._kept["image"]
        layers = [layer for layer in candidates(self.viewer) if usable(layer)]
        for index, (choice, name) in enumerate(zip(kept, names, strict=False)):
            by_hand = isinstance(choice, str) or any(choice is one for one in self._by_hand)
            named = any(_carries(layer.name, name, index) for layer in layers)
            if choice is not None and not by_hand and named and not _carries(choice.name, name, index):
                kept[index] = None

    def asked_of(self, channels: Sequence[Channel]) -> tuple[Channel, ...]:
        """What is asked for of a model with these channels: of red, green and blue one picture, where one is open."""
        names = tuple(channel.name.lower() for channel in channels)
        pictures = any(getattr(layer, "rgb", False) for layer in candidates(self.viewer))
        if names == COLOURS and pictures:
            return (replace(channels[0], name=PICTURE),)
        return tuple(channels)

    def choose(self, channel: int, choice: Any) -> None:
        """A layer, `SELECTED` or `EACH_SELECTED` for a channel."""
        self.chosen[channel] = choice
        self._by_hand = [*(one for one in self._by_hand if one in self.layers), choice]
        self._keep()
        self.changed.emit()

    def refresh(self) -> None:
        """List the layers anew; keep what is chosen, and suggest something only where nothing is."""
        self.channels = self.asked_of(self._of_model)
        self.layers = candidates(self.viewer, self.masks)
        kept = [choice if choice in self.layers or isinstance(choice, str) else None for choice in self._kept_choices()]
        names = [channel.name for channel in self.channels]
        active = self.viewer.layers.selection.active
        self.chosen = suggest(names, self.layers, kept, active, colours=self._kind == "picture")
        self._keep()
        shown = (self.channels, self.layers, list(self.chosen), [layer.name for layer in self.layers])
        if shown != self._shown:  # labels that come change nothing for a model of images
            self._shown = shown
            self.changed.emit()

    def _kept_choices(self) -> list[Any]:
        kept, count = self._kept[self._kind], len(self.channels)
        if count > 1:  # "the selected" layer is one, and cannot be several channels
            kept = [None if isinstance(choice, str) else choice for choice in kept]
        return [*kept[:count], *[None] * (count - len(kept))]

    def _keep(self) -> None:
        kept = self._kept[self._kind]
        kept[: len(self.chosen)] = self.chosen  # a third channel's choice outlives a model of two

    def _on_layers(self, event: Any = None) -> None:
        self.refresh()

    def _on_selection(self, event: Any = None) -> None:
        if any(isinstance(choice, str) for choice in self.chosen):
            self.changed.emit()

    # ---- what that means now

    @property
    def runs(self) -> list[list[Layer]]:
        """The layers of each run that would start now, one a channel; empty where something is missing."""
        if self.chosen == [EACH_SELECTED]:
            selection = self.viewer.layers.selection
            return [[layer] for layer in self.viewer.layers if layer in selection and layer in self.layers]
        layers = [self._resolve(choice) for choice in self.chosen]
        return [layers] if layers and all(layer is not None for layer in layers) else []

    def _resolve(self, choice: Any) -> Any:
        if choice == SELECTED:
            active = self.viewer.layers.selection.active
            return active if active in self.layers else None
        return choice

    @property
    def problem(self) -> str:
        """Why no run could start with this choice, in a sentence; empty where one could."""
        wanted = "mask" if self.masks else "image"
        if not self.channels:
            return ""
        if not self.layers:
            return NO_MASK if self.masks else NO_IMAGE
        if self.chosen == [SELECTED] and not self.runs:
            active = self.viewer.layers.selection.active
            which = f"'{active.name}' is selected, which is no {wanted} layer" if active else "No layer is selected"
            return f"{which}: select one in the layer list, or choose one here."
        if self.chosen == [EACH_SELECTED] and not self.runs:
            return f"None of the selected layers is of the kind '{wanted}': select some in the layer list."
        for channel, choice in zip(self.channels, self.chosen, strict=True):
            if choice is None:
                what = f" for {channel.name}" if len(self.channels) > 1 else ""
                return f"No layer is chosen{what}: open its {wanted}, or choose a layer in the list."
        twice = [choice for i, choice in enumerate(self.chosen) if choice in self.chosen[:i]]
        if twice:
            return f"'{twice[0].name}' is chosen for two channels: choose another layer for one of them."
        return ""


NO_IMAGE = "Open an image first: drop a file into the window, or take File ▸ Open Sample."
NO_MASK = "Open or draw labels first: this model takes the mask of one structure, not an image."


def candidates(viewer: ViewerModel, masks: bool = False) -> tuple[Layer, ...]:
    """The layers that a model can be run on, the uppermost first; where `masks`, labels come before images."""
    from napari.layers import Image, Labels

    layers = [layer for layer in reversed(viewer.layers) if not is_map(layer)]
    labels = [layer for layer in layers if masks and type(layer) is Labels]
    return (*labels, *(layer for layer in layers if type(layer) is Image))


def is_map(layer: Layer) -> bool:
    """Whether this plugin made the layer to explain a result: uncertainty, evidence, a difference."""
    return layer.metadata.get(KEY, {}).get("role") == "map"


def usable(layer: Layer) -> bool:
    """Whether a layer is one image that a model can take: no colours, and not a series of more than one axis."""
    return not getattr(layer, "rgb", False) and layer.ndim in (2, 3, 4)


def suggest(
    names: Sequence[str],
    layers: Sequence[Layer],
    kept: Sequence[Any],
    active: Layer | None = None,
    colours: bool = False,
) -> list[Any]:
    """A layer for each channel that has none: one that carries its name; else the active one; else the next unused.

    Parameters
    ----------
    names : sequence of str
        The channels'; their first words, and nnU-Net's endings (``_0000``), are looked for in the layers' names.
    layers : sequence of layers
    kept : sequence of layer, str or None
        What is chosen already, a channel each.
    active : layer, optional
        The one selected in the viewer.
    colours : bool
        A colour layer is wanted, and a grey one does too.

    Returns
    -------
    list
        None where every usable layer is taken by another channel.
    """
    chosen = list(kept)
    fit = [layer for layer in layers if usable(layer) or (colours and getattr(layer, "rgb", False))]
    if colours:
        fit.sort(key=lambda layer: not layer.rgb)
    if len(names) > 1:
        for i, name in enumerate(names):
            if chosen[i] is None:
                free = (layer for layer in fit if layer not in chosen)
                chosen[i] = next((layer for layer in free if _carries(layer.name, name, i)), None)
    for i, layer in enumerate(chosen):
        unused = [other for other in fit if other not in chosen]
        if layer is None and unused:
            chosen[i] = active if active in unused else unused[0]
    if not any(chosen) and len(names) == 1 and layers:
        chosen = [layers[0]]  # not usable, so that its own sentence is said
    return chosen


def _carries(layer_name: str, channel: str, index: int) -> bool:
    name, word = layer_name.lower(), channel.split(" ", 1)[0].lower()
    return word in name or f"_{index:04d}" in name
