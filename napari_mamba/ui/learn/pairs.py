"""Images and their labels, layer by layer: whose they are, and who is held out. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_mamba.errors import NapariMambaError
from napari_mamba.training.adaptation.people import Case, doubtful_people, person_of, split_people
from napari_mamba.ui.layers import KEY, placement

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


@dataclass(eq=False)
class Pair:
    """An image layer and a labels layer.

    `held_out` says that nothing is learnt from them, and they are scored; `whole` that no voxel of the labels is
    unknown, whatever is said of unpainted voxels: they are a corrected answer.
    """

    image: Layer
    labels: Layer | None = None
    person: str = ""
    held_out: bool = False
    whole: bool = False


@dataclass
class Pairs:
    """What is learnt from, of the layers of one viewer.

    Parameters
    ----------
    viewer : napari viewer model

    Attributes
    ----------
    rows : list of Pair
    by_hand : bool
        Whether a user chose whom to hold out; until then it is a fifth of the people, as the command takes them.
    """

    viewer: ViewerModel
    rows: list[Pair] = field(default_factory=list)
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

    def add(self, image: Layer | None = None, labels: Layer | None = None) -> Pair | None:
        """Add those layers, or the first image that is in no pair, with labels on its grid; None if none is left."""
        if image is None:
            taken = {id(pair.image) for pair in self.rows}
            free = [layer for layer in self.images if id(layer) not in taken]
            image = next((one for one in free if self._labels_for(one)), next(iter(free), None))
        if image is None:
            return None
        labels = labels or next(iter(self._labels_for(image)), None)
        pair = Pair(image, labels, person_of(image.name))
        self.rows.append(pair)
        self._changed()
        return pair

    def add_all(self) -> int:
        """Add every image that is in no pair and has labels on its grid; how many there were."""
        taken = {id(pair.image) for pair in self.rows}
        added = 0
        for image in self.images:
            found = [] if id(image) in taken else self._labels_for(image)
            if found:
                self.rows.append(Pair(image, found[0], person_of(image.name)))
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
            pair.person = person_of(pair.image.name)
            if pair.labels not in (fitting := self._labels_for(pair.image)):
                pair.labels = next(iter(fitting), None)
        if "held_out" in values:
            self.by_hand = True
            for other in self.rows:
                if other.person == pair.person:
                    other.held_out = pair.held_out
        self._changed()

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
            if pair.image in seen:
                return f"'{name}' is there twice: remove one of the two."
            seen.append(pair.image)
            if not pair.person:
                return f"Say whose image '{name}' is: write a name into the column Person."
        if self.held_out == self.people:
            return "Every person is held out: leave some to learn from."
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


def same_place(image: Layer, labels: Layer) -> bool:
    """Whether two layers have the same voxels."""
    shapes = [tuple((layer.data[0] if layer.multiscale else layer.data).shape) for layer in (image, labels)]
    if shapes[0] != shapes[1]:
        return False
    try:
        one, other = placement(image), placement(labels)
    except NapariMambaError:
        return False
    return np.allclose(one.affine, other.affine, rtol=0, atol=1e-2)


def counted(number: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "person"), counted(2, "person"), counted(3, "image")
    ('1 person', '2 people', '3 images')
    """
    many = "people" if what == "person" else what + "s"
    return f"{number} {what if number == 1 else many}"


def names_of(pairs: Sequence[Pair]) -> list[str]:
    """A file name for each pair, of its image's, all different."""
    import re

    names: list[str] = []
    for pair in pairs:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", pair.image.name).strip("._") or "image"
        free, number = stem, 2
        while free in names:
            free, number = f"{stem}-{number}", number + 1
        names.append(free)
    return names
