"""What a training carries from step to step, and its checkpoint on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError, OutputError
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.options import Score
from napari_mamba.training.adaptation.schemes import Scheme
from napari_mamba.training.optimisation.optimisers import Optimiser

CHECKPOINT, HISTORY = "checkpoint.pt", "history.jsonl"


class State:
    """Networks, optimiser, the best weights so far, and where the training stands.

    Parameters
    ----------
    scheme : Scheme
        Its networks on their device.
    kind : str
        Of the optimiser.
    about : mapping
        What a checkpoint has to agree in to be gone on from (bundle, classes, patch, seed), and "people",
        who may become more.
    folder : Path
        Of the checkpoint.
    """

    def __init__(self, scheme: Scheme, kind: str, about: Mapping[str, Any], folder: Path) -> None:
        self.scheme, self.about, self.folder = scheme, dict(about), folder
        self.optimiser = Optimiser(scheme.students, kind)
        self.pretrained = False
        self.step, self.seconds = 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.best_step = 0
        self.score: Score | None = None
        self.before: float | None = None
        self.validated = -1  # the step that was scored last

    @property
    def network(self) -> nn.Module:
        """What is scored and kept: the running mean of the weights."""
        return self.scheme.average

    def keep(self, score: Score | None) -> bool:
        """Note a score of the current weights; whether they are the best so far, and kept."""
        self.validated = self.step
        if score is not None and self.score is not None and score.mean <= self.score.mean:
            return False
        self.best = {key: value.detach().cpu().clone() for key, value in self.network.state_dict().items()}
        self.best_step, self.score = self.step, score
        return True

    def log(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the history."""
        with open(self.folder / HISTORY, "a", encoding="utf-8") as file:
            file.write(json.dumps(dict(entry)) + "\n")

    def save(self) -> None:
        """Write the checkpoint beside and rename it, so that a kill at any moment leaves a whole one."""
        state = {
            "about": json.dumps(self.about), "step": self.step, "seconds": self.seconds, "before": self.before,
            "networks": self.scheme.state_dict(), "pretrained": self.pretrained,
            "optimiser": self.optimiser.state_dict(), "best": self.best,
            "best_step": self.best_step, "score": asdict(self.score) if self.score else None,
            "validated": self.validated,
        }  # fmt: skip
        part = self.folder / (CHECKPOINT + ".part")
        try:
            torch.save(state, part)
            part.replace(self.folder / CHECKPOINT)
        except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
            part.unlink(missing_ok=True)
            raise OutputError(
                f"{self.folder}: the checkpoint cannot be written: free some space; --resume goes on from the last one"
            ) from error

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        InputError
            If it is of another adaptation.
        """
        told = json.loads(saved["about"])
        if odd := [key for key, value in self.about.items() if key != "people" and told.get(key) != value]:
            raise InputError(
                f"the stopped training in {self.folder} has another {odd[0]}: give the same as then, or begin anew "
                "with --overwrite and without --resume"
            )
        self.about["people"]["training"] = sorted({*self.about["people"]["training"], *told["people"]["training"]})
        self.scheme.load_state_dict(saved["networks"])
        self.pretrained = saved["pretrained"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step, self.seconds, self.before = saved["step"], saved["seconds"], saved["before"]
        self.best, self.best_step, self.validated = saved["best"], saved["best_step"], saved["validated"]
        self.score = Score(**saved["score"]) if saved["score"] else None


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The checkpoint in a folder; nothing in it is executed.

    Raises
    ------
    InputError
        If there is none, or it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise InputError(f"there is no stopped training in {folder}: leave --resume out")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in any way
        raise InputError(f"{path} is damaged: begin anew with --overwrite and without --resume") from error


def people_held_out(saved: Mapping[str, Any]) -> tuple[str, ...]:
    """Whom a stopped training held out."""
    return tuple(json.loads(saved["about"])["people"]["validation"])


def check_people(saved: Mapping[str, Any], validation: Sequence[Case]) -> None:
    """Raise `InputError` if somebody whom the stopped training has learnt from is held out now."""
    learnt = set(json.loads(saved["about"])["people"]["training"])
    if both := sorted(learnt & {case.person for case in validation}):
        raise InputError(
            f"the stopped training has learnt from {both[0]!r}, and a score on training data says nothing: hold "
            "out the same people as then"
        )
