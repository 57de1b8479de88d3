"""What a user can choose about adapting, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from napari_mamba.engine.progress.events import Progress
from napari_mamba.errors import InputError

SCHEME_NAMES = ("supervised", "mean-teacher", "cross", "scribbles")
"""Keys of `schemes.SCHEMES`, for those who do not import PyTorch."""
NETWORKS = {"cross": 2, "scribbles": 3}
"""How many networks learn, where there are several."""


@dataclass(frozen=True)
class AdaptOptions:
    """Options of an adaptation.

    Parameters
    ----------
    classes : {"same", "other", "more"}
        See `classes.choose_classes`.
    unknown, background : int, optional
        Values of unpainted voxels, and of painted background where it is not 0.
    validation : tuple of str
        People to hold out; a fifth of them if empty.
    no_validation : bool
        Learn from everybody; nothing is scored then, and the last weights are kept.
    minutes : float
        Of training and validation, over all resumed pieces.
    steps : int, optional
        Stop after so many steps in all.
    learning_rate, optimiser, seed
    batch_size : int, optional
        Patches of a step; 1 on a CPU, 2 elsewhere if not given.
    patch : tuple of int, optional
        Voxels (z, y, x) or (y, x) that a step sees; on a CPU up to 64 an axis if not given.
    validate_every : int, optional
        Steps between two scores; if not given, as often as a quarter of the time allows.
    device : str
        "auto", "cpu", "cuda", ...
    resume, overwrite : bool
    scheme : {"supervised", "mean-teacher", "cross", "scribbles"}
        What is learnt where there are no labels: see `schemes`.
    unlabelled : path, optional
        Images without labels, for the schemes and for `pretrain_minutes`: see `cases.find_images`.
    pretrain_minutes, pretrain_steps : float, int
        Paint hidden parts of all images so long before; 0 for not at all. Not counted in `minutes` and `steps`.
    freeze : {"", "encoder"}
        The part of the network whose weights stay.
    preview : str
        Name of an image; after each round a label map of it is written beside the checkpoint (`preview`).
    random_weights : bool
        Begin from random weights instead of the bundle's, to see what these are worth.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    classes: str = "same"
    unknown: int | None = None
    background: int | None = None
    validation: tuple[str, ...] = ()
    no_validation: bool = False
    minutes: float = 10.0
    steps: int | None = None
    learning_rate: float = 1e-3
    optimiser: str = "adamw"
    batch_size: int | None = None
    patch: tuple[int, ...] | None = None
    validate_every: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False
    scheme: str = "supervised"
    unlabelled: Path | None = None
    pretrain_minutes: float = 0.0
    pretrain_steps: int = 0
    freeze: str = ""
    random_weights: bool = False
    preview: str = ""

    def __post_init__(self) -> None:
        for name in ("minutes", "steps", "learning_rate", "batch_size", "validate_every"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise InputError(f"{name.replace('_', ' ')} is above 0, not {value:g}")
        if self.scheme not in SCHEME_NAMES:
            raise InputError(f"there is no scheme {self.scheme!r}: use one of {', '.join(SCHEME_NAMES)}")
        if min(self.pretrain_minutes, self.pretrain_steps) < 0:
            raise InputError("the time of pretraining is 0 or more")
        if self.freeze and self.random_weights:
            raise InputError("random weights that stay as they are teach nothing: leave one of the two out")
        if self.unknown == 0 and self.background is None:
            raise InputError(
                "if 0 is unknown, nothing says what is background: paint some background with a value of its own, and "
                "name it with --background"
            )
        if self.unknown is not None and self.unknown == self.background:
            raise InputError("unknown and background voxels need different values: choose another one")


@dataclass(frozen=True)
class Score:
    """Dice on held-out people.

    Attributes
    ----------
    mean, sd : float
        Over people, of each one's mean over the drawn classes; `sd` is 0 for one person.
    people, images : int
        What it stands on.
    classes : dict of int to float
        Mean over people, by channel.
    part : bool
        Of some tiles of large images alone: those with drawn structures, and some others.
    """

    mean: float
    sd: float
    people: int
    images: int
    classes: dict[int, float]
    part: bool = False


@dataclass(frozen=True)
class AdaptProgress(Progress):
    """An event: stages are "checking", "preparing", "pretraining", "training", "validating",
    "previewing" and "writing".

    `loss` comes with "pretraining" and "training"; `score` where a validation ended, with whether it is the best one
    (`best`); `preview` is the path of a label map.
    """

    loss: float | None = None
    score: Score | None = None
    best: bool = False
    preview: str = ""


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Attributes
    ----------
    path : Path or None
        The bundle; None if it was stopped before there were weights to keep.
    cancelled : bool
    score : Score or None
        Of the kept weights, on held-out people.
    facts : dict
        What the card says: steps, minutes, people, peak memory in bytes, ...
    """

    path: Path | None
    cancelled: bool
    score: Score | None
    facts: dict = field(default_factory=dict)
