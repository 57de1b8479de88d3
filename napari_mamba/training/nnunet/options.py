"""What a user can choose about training with nnU-Net, what it tells, and what comes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_mamba import models
from napari_mamba.engine.progress.events import Progress
from napari_mamba.errors import InputError
from napari_mamba.nn.mixers.exchange import DEFAULT
from napari_mamba.training.nnunet.networks import BASELINES, MIXERS, TRAINABLE, trainable, trainer_name

_PLANNERS = {"resenc": ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans")}
_DEFAULT_PLANNER = ("ExperimentPlanner", "nnUNetPlans")


@dataclass(frozen=True)
class Run:
    """One network with one mixer."""

    network: str
    mixer: str = DEFAULT

    @property
    def name(self) -> str:
        """For people and folders, such as "umamba_bot" or "umamba_bot-s4d"."""
        return self.network if self.mixer == DEFAULT else f"{self.network}-{self.mixer}"

    @property
    def trainer(self) -> str:
        """Its nnU-Net trainer."""
        return trainer_name(self.network, self.mixer)

    @property
    def planner(self) -> tuple[str, str]:
        """nnU-Net's planner and what it calls its plans."""
        return _PLANNERS.get(self.network, _DEFAULT_PLANNER)

    def configuration(self, dims: int) -> str:
        """ "3d_fullres" for volumes, if the network has three dimensions."""
        three = dims == 3 and (self.network in BASELINES or 3 in trainable(self.network).dims)
        return "3d_fullres" if three else "2d"


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training.

    Parameters
    ----------
    networks, mixers : tuple of str
        Each network with each mixer, on the same folds; `networks.BASELINES` have one mixer.
    folds : str, optional
        "0,1", "all" (learn from everybody, no score), or every fold.
    epochs, iterations, validation_iterations : int, optional
        Of nnU-Net: 1000 epochs of 250 and 50 iterations.
    minutes : float, optional
        Of each network and fold, instead of epochs.
    batch_size : int, optional
        Patches of a step, instead of the plan's.
    configuration : str, optional
        "2d" for slices of volumes; "3d_fullres".
    channels, persons, splits
        See `data.find_dataset`, `folds.read_splits`.
    gpu_memory : float, optional
        Gigabytes that nnU-Net plans patches for.
    gpus : int
        That train one network together.
    processes : int, optional
        That preprocess and load images; the computer's cores, at most 8.
    device : str
        "auto", "cpu", "cuda" or "mps".
    tolerance_mm : float
        Of the surface Dice.
    resume, overwrite : bool

    Raises
    ------
    InputError
        If a network or mixer is not known, they do not go together, or a number is out of range.
    """

    networks: tuple[str, ...]
    mixers: tuple[str, ...] = (DEFAULT,)
    folds: str | None = None
    epochs: int | None = None
    iterations: int | None = None
    validation_iterations: int | None = None
    minutes: float | None = None
    batch_size: int | None = None
    configuration: str | None = None
    channels: tuple[str, ...] = ()
    persons: str | None = None
    splits: Path | None = None
    gpu_memory: float | None = None
    gpus: int = 1
    processes: int | None = None
    device: str = "auto"
    tolerance_mm: float = 1.0
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        counts = ("epochs", "iterations", "validation_iterations", "batch_size", "gpus", "processes")
        for name in (*counts, "minutes", "gpu_memory"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise InputError(f"{name.replace('_', ' ')} is above 0, not {value:g}")
        if self.epochs is not None and self.minutes is not None:
            raise InputError("epochs and minutes both say when training ends: give one of them")
        if self.configuration not in (None, "2d", "3d_fullres"):
            raise InputError(f"the configurations are 2d and 3d_fullres, not {self.configuration!r}")
        if self.device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
            raise InputError(f"--device {self.device} is not known: it is auto, cpu, cuda or mps")
        for mixer in self.mixers:
            if mixer not in MIXERS:
                raise InputError(f"there is no mixer {mixer!r}; there are {', '.join(MIXERS)}")
        for network in self.networks:
            if network not in BASELINES:
                trainable(network)
                if self.configuration == "3d_fullres" and 3 not in TRAINABLE[network].dims:
                    raise InputError(f"{network} sees slices: leave the configuration out, or choose 2d")
        if not self.networks:
            raise InputError("name a network with --network; napari-mamba train --list has them")

    @property
    def runs(self) -> tuple[Run, ...]:
        """Every network with every mixer, each once."""
        every = [
            Run(network, mixer)
            for network in self.networks
            for mixer in (self.mixers if network not in BASELINES else (DEFAULT,))
        ]
        return tuple(dict.fromkeys(every))

    def remembered(self) -> dict[str, Any]:
        """What a resumed training must have in common with the one before; it may add networks, mixers and folds."""
        known = asdict(self)
        free = ("networks", "mixers", "folds", "epochs", "minutes", "gpus", "processes", "device", "tolerance_mm")
        for name in (*free, "resume", "overwrite"):
            known.pop(name)
        return {key: str(value) if isinstance(value, Path) else value for key, value in known.items()}


def check_mixers(runs: tuple[Run, ...]) -> None:
    """Raise `InputError` if a network does not take a mixer; builds none of those that keep theirs."""
    import torch

    from napari_mamba.training.nnunet.networks import PlanFacts, network_arguments

    for run in runs:
        if run.mixer == DEFAULT:
            continue
        dims = 3 if 3 in trainable(run.network).dims else 2
        stages = ((1,) * dims, (2,) * dims, (2,) * dims)
        kernels = ((3,) * dims,) * 3
        facts = PlanFacts(1, 2, (64,) * dims, (32, 64, 128), kernels, stages, (2, 2, 2), (2, 2))
        with torch.device("meta"):
            models.create(run.network, **network_arguments(run.network, run.mixer, facts))


@dataclass(frozen=True)
class TrainProgress(Progress):
    """An event: stages are "checking", "planning", "training", "validating", "measuring" and "writing".

    `overall` is the share of the whole command, 0 to 1. In "training" `facts` has epoch, loss and Dice.
    """

    overall: float = 0.0
    network: str = ""
    fold: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes
    ----------
    bundles : dict of str to Path
        By `Run.name`; empty if it was stopped before.
    cancelled : bool
    scores : dict
        By `Run.name`, of `scores.summarise`; empty where nobody was held out.
    table : Path or None
        The comparison, where there are several networks.
    warnings : tuple of str
    """

    bundles: dict[str, Path]
    cancelled: bool = False
    scores: dict[str, Any] = field(default_factory=dict)
    table: Path | None = None
    warnings: tuple[str, ...] = ()
