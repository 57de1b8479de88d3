"""Images and their labels, layer by layer: whose they are, and who is held out. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba.errors import NapariMambaError
from napari_mamba.training.adaptation.data.people import Case, doubtful_people, person_of, split_people
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.learn.images.channels import base_name, channel_beside, channel_of, same_place

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


@dataclass(eq=False)
class Pair:
    """An image layer and a labels layer; of a model of several channels, `more` has a layer for each but the first.

    `held_out` says that nothing is learnt from them, and they are scored; `whole` that no voxel of the labels is
    unknown, whatever is said of unpainted voxels: they are a corrected answer.
    """

    image: Layer
    labels: Layer | None = None
    person: str = ""
    held_out: bool = False
    whole: bool = False
    more: tuple[Layer | None, ...] = ()

    @property
    def layers(self) -> list[Layer]:
        """Of all channels that have one."""
        return [self.image, *(layer for layer in self.more if layer is not None)]


@dataclass
class Pairs:
    """What is learnt from, of the layers of one viewer.

    Parameters
    ----------
    viewer : napari viewer model

    Attributes
    ----------
    rows : list of Pair
    channels : tuple of str
        Names of the channels of an image.
    by_hand : bool
        Whether a user chose whom to hold out; until then it is a fifth of the people, as the command takes them.
    """

    viewer: ViewerModel
    rows: list[Pair] = field(default_factory=list)
    channels: tuple[str, ...] = ("image",)
    by_hand: bool = False
    changed: ClassVar[Signal] = Signal()

    def __post_init__(self) -> None:
        self.viewer.layers.events.inserted.connect(self._on_layers)
        self.viewer.layers.events.removed.connect(self._on_layers)

    # ---- what there is

    @property
    def images(self) -> list[Layer]:
        """Image layers of the viewer that are no maps of a model, of at most three axes."""
        return [
            layer for layer in self.viewer.layers
            if type(layer).__name__ == "Image" and layer.ndim in (2, 3) and not layer.rgb
            and layer.metadata.get(KEY, {}).get("role") != "map"
        ]  # fmt: skip

    @property
    def labels(self) -> list[Layer]:
        """Labels layers of the viewer."""
        return [layer for layer in self.viewer.layers if type(layer).__name__ == "Labels"]

    @property
    def people(self) -> list[str]:
        """Whose images there are."""
        return sorted({pair.person for pair in self.rows})

    @property
    def held_out(self) -> list[str]:
        """Who is not learnt from."""
        return sorted({pair.person for pair in self.rows if pair.held_out})

    # ---- changing it

    def set_channels(self, names: Sequence[str]) -> None:
        """Another model: an image has these channels, whose layers are looked for beside the first one's."""
        if tuple(names) == self.channels:
            return
        self.channels = tuple(names)
        for pair in self.rows:
            pair.more = ()
        for pair in self.rows:
            pair.more = self._more_for(pair.image)
        self._changed()

    def add(self, image: Layer | None = None, labels: Layer | None = None) -> Pair | None:
        """Add those layers, or the first image that is in no pair, with labels on its grid; None if none is left."""
        if image is None:
            free = self.free
            image = next((one for one in free if self._labels_for(one)), next(iter(free), None))
        if image is None:
            return None
        labels = labels or next(iter(self._labels_for(image)), None)
        pair = self._pair(image, labels)
        self.rows.append(pair)
        self._changed()
        return pair

    def add_all(self) -> int:
        """Add every image that is in no pair and has labels on its grid; how many there were."""
        added = 0
        for image in self.free:
            if found := self._labels_for(image):
                self.rows.append(self._pair(image, found[0]))
                added += 1
        if added:
            self._changed()
        return added

    def remove(self, pair: Pair) -> None:
        """Take a pair away; its layers stay in the viewer."""
        self.rows.remove(pair)
        self._changed()

    def change(self, pair: Pair, **values: Any) -> None:
        """Set fields of a pair; a person is held out with all of their images, and other labels are not `whole`."""
        if "labels" in values:
            values.setdefault("whole", False)
        for name, value in values.items():
            setattr(pair, name, value)
        if "image" in values:
            pair.person, pair.more = self._person(pair.image), ()
            pair.more = self._more_for(pair.image)
            if pair.labels not in (fitting := self._labels_for(pair.image)):
                pair.labels = next(iter(fitting), None)
        if "held_out" in values:
            self.by_hand = True
            for other in self.rows:
                if other.person == pair.person:
                    other.held_out = pair.held_out
        self._changed()

    def _pair(self, image: Layer, labels: Layer | None) -> Pair:
        return Pair(image, labels, self._person(image), more=self._more_for(image))

    def _person(self, image: Layer) -> str:
        several = len(self.channels) > 1
        return person_of(base_name(image.name, self.channels[0]) if several else image.name)

    @property
    def free(self) -> list[Layer]:
        """Images that are in no pair, without those that seem to be another channel of one."""
        taken = {id(layer) for pair in self.rows for layer in pair.layers}
        return [
            layer for layer in self.images
            if id(layer) not in taken and channel_of(layer, self.channels, self.images) in (0, None)
        ]  # fmt: skip

    def _more_for(self, image: Layer) -> tuple[Layer | None, ...]:
        """For each channel but the first, the layer that is that of the same image; None where it is in doubt."""
        if len(self.channels) < 2:
            return ()
        taken = {id(layer) for pair in self.rows for layer in pair.layers} | {id(image)}
        free = [layer for layer in self.images if id(layer) not in taken and same_place(image, layer)]
        return tuple(channel_beside(image, number, self.channels, free) for number in range(1, len(self.channels)))

    def _labels_for(self, image: Layer) -> list[Layer]:
        """Labels on an image's grid: those made from it first, then those that bear its name."""
        fits = [layer for layer in self.labels if same_place(image, layer)]
        made = [layer for layer in fits if layer.metadata.get(KEY, {}).get("source") == image.name]
        named = [layer for layer in fits if image.name.lower() in layer.name.lower()]
        taken = {id(pair.labels) for pair in self.rows}
        ordered = [*made, *named, *fits]
        return sorted(dict.fromkeys(ordered), key=lambda layer: id(layer) in taken)

    def _on_layers(self, _: Any = None) -> None:
        here = {id(layer) for layer in self.viewer.layers}
        before = len(self.rows)
        self.rows = [pair for pair in self.rows if id(pair.image) in here]
        for pair in self.rows:
            if pair.labels is not None and id(pair.labels) not in here:
                pair.labels = None
            pair.more = tuple(layer if id(layer) in here else None for layer in pair.more)
        if before != len(self.rows):
            self._changed()
        else:
            self.changed.emit()

    def _changed(self) -> None:
        if not self.by_hand:
            chosen = self._fifth()
            for pair in self.rows:
                pair.held_out = pair.person in chosen
        self.changed.emit()

    def _fifth(self) -> set[str]:
        if not self.rows:
            return set()
        try:
            return {case.person for case in split_people(self.cases())[1]}
        except NapariMambaError:  # one person
            return set()

    def cases(self) -> list[Case]:
        """The rows, as the command knows them."""
        return [Case(pair.image.name, pair.person, (Path(pair.image.name),), None) for pair in self.rows]

    def close(self) -> None:
        """Listen to the viewer no longer."""
        self.viewer.layers.events.inserted.disconnect(self._on_layers)
        self.viewer.layers.events.removed.disconnect(self._on_layers)

    # ---- what is wrong with it

    def problem(self) -> str:
        """A sentence about why nothing can be learnt from these, empty if something can."""
        if not self.rows:
            return "Add an image with its labels: open both, and press Add."
        seen: list[Any] = []
        for pair in self.rows:
            name = pair.image.name
            if pair.labels is None:
                return f"'{name}' has no labels: add a labels layer on its grid, paint in it, and choose it here."
            if not same_place(pair.image, pair.labels):
                return (
                    f"'{pair.labels.name}' lies on another grid than '{name}': choose labels that were painted on this "
                    "image, or resample them onto it."
                )
            if problem := self._channel_problem(pair):
                return problem
            if twice := next((layer for layer in pair.layers if layer in seen), None):
                return f"'{twice.name}' is there twice: remove one of the two."
            seen += pair.layers
            if not pair.person:
                return f"Say whose image '{name}' is: write a name into the column Person."
        if self.held_out == self.people:
            return "Every person is held out: leave some to learn from."
        return ""

    def _channel_problem(self, pair: Pair) -> str:
        name = pair.image.name
        for channel, layer in zip(self.channels[1:], pair.more, strict=True):
            if layer is None:
                return f"Which layer is {channel} of '{name}'? Choose its row, and the layer below the list."
            if not same_place(pair.image, layer):
                return f"'{layer.name}' lies on another grid than '{name}': resample it onto that one first."
        if len({id(layer) for layer in pair.layers}) < len(pair.layers):
            return f"One layer is two channels of '{name}': choose another one below the list."
        return ""

    def score_sentence(self) -> tuple[str, str]:
        """What the score will stand on: a kind ("hint", "warning") and a sentence."""
        training = [pair for pair in self.rows if not pair.held_out]
        scored = [pair for pair in self.rows if pair.held_out]
        if not scored:
            only = "There is one person only" if len(self.people) < 2 else "Nobody is held out"
            return "warning", (
                f"{only}: it can learn, but its score stays unknown, since a score on training data says nothing. "
                "A second person's image would tell."
            )
        text = (
            f"Learns from {counted(len(training), 'image')} of {counted(len({p.person for p in training}), 'person')}. "
            f"The score stands on {counted(len(scored), 'image')} of {counted(len(self.held_out), 'person')}"
        )
        text += ": so few say little about others." if len(self.held_out) < 5 else "."
        cases = self.cases()
        both = doubtful_people(
            [case for case, pair in zip(cases, self.rows, strict=True) if not pair.held_out],
            [case for case, pair in zip(cases, self.rows, strict=True) if pair.held_out],
        )
        if both:
            return "warning", f"Are '{both[0]}' and '{both[1]}' one person? Then give them one name. {text}"
        return "hint", text


def counted(number: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "person"), counted(2, "person"), counted(3, "image")
    ('1 person', '2 people', '3 images')
    """
    many = "people" if what == "person" else what + "s"
    return f"{number} {what if number == 1 else many}"
