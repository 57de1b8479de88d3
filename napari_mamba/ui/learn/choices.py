"""What a user chooses about learning, apart from the images, and the words of the command that say it. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor

CLASSES = (("The drawn ones alone", "other"), ("The model's own", "same"), ("Both", "more"))
UNPAINTED = (("Background", "background"), ("Unknown", "unknown"))
SCHEMES = (
    ("Painted voxels alone", "supervised", "The network is told what is painted, and nothing else."),
    ("Mean teacher", "mean-teacher", "Where nothing is painted, it should agree with the running mean of itself."),
    ("Two networks", "cross", "Two networks teach each other on images without labels: twice the time."),
    ("Three networks", "scribbles", "Three networks fill in what nobody painted: three times the time."),
)


@dataclass
class Choices:
    """Choices of the dock.

    Parameters
    ----------
    place : str
        A folder or CSV of pairs; empty for layers of the window.
    classes : str
        See `CLASSES`.
    unpainted : str
        What voxels of the value 0 mean: "background" or "unknown".
    background : int
        The value of painted background where unpainted voxels are unknown.
    minutes : float
    scheme, unlabelled, pretrain_minutes
        As the command's options.
    encoder_stays : bool
        Learn with the decoder alone.
    previews : bool
        Show the answer on an image after each better round.
    name : str
        Of the new bundle.
    device : str
    """

    place: str = ""
    classes: str = "other"
    unpainted: str = "background"
    background: int = 9
    minutes: float = 10.0
    scheme: str = "supervised"
    unlabelled: str = ""
    pretrain_minutes: float = 0.0
    encoder_stays: bool = False
    previews: bool = True
    name: str = ""
    device: str = "auto"
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    def problem(self) -> str:
        """A sentence about what does not go together, or nothing."""
        if not 0 < self.minutes < 1e6:
            return "Give it more than 0 minutes."
        if self.scheme == "cross" and not self.unlabelled:
            return "Two networks teach each other on images without labels: choose a folder of those, or another way."
        if self.unlabelled and self.scheme == "supervised" and not self.pretrain_minutes:
            return "Nothing is learnt from images without labels this way: choose another, or minutes of looking first."
        if self.scheme in ("mean-teacher", "scribbles") and not self.unlabelled and self.unpainted == "background":
            return "This way learns from unpainted voxels: say that they are unknown, or choose images without labels."
        for what, text in (("folder or list", self.place), ("folder of images without labels", self.unlabelled)):
            if text and not Path(text).expanduser().exists():
                return f"The {what} is not there any more: {text}"
        return ""

    def words(self) -> list[str]:
        """Of the command, in its order of options."""
        words = ["--classes", self.classes, "--minutes", f"{self.minutes:g}", "--device", self.device]
        if self.unpainted == "unknown":
            words += ["--unknown", "0", "--background", str(self.background)]
        if self.scheme != "supervised":
            words += ["--scheme", self.scheme]
        if self.unlabelled:
            words += ["--unlabelled", str(Path(self.unlabelled).expanduser())]
        if self.pretrain_minutes:
            words += ["--pretrain-minutes", f"{self.pretrain_minutes:g}"]
        if self.encoder_stays:
            words += ["--freeze", "encoder"]
        return words

    def to_dict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def take(self, values: dict[str, Any]) -> None:
        """Set what a file says, as far as it is known and of the same kind."""
        known = {field.name: type(field.default) for field in fields(self)}
        for key, value in values.items():
            if key in known and isinstance(value, known[key] if known[key] is not float else (int, float)):
                setattr(self, key, value)


def free_name(wanted: str, taken: Sequence[str]) -> str:
    """A bundle's name like `wanted` that is not taken.

    >>> free_name("hippocampus-mr-mine", ["hippocampus-mr-mine", "hippocampus-mr-mine-2"])
    'hippocampus-mr-mine-3'
    """
    import re

    found = re.fullmatch(r"(.*?)-(\d+)", wanted)
    stem, number = (found[1], int(found[2])) if found else (wanted, 1)
    free = wanted
    while free in taken:
        number += 1
        free = f"{stem}-{number}"
    return free
