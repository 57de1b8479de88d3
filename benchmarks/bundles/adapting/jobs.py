"""The rows of the table: whom each learns from, how, and for how many steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STEPS = 800
RATE = 1e-3
_FEW = 300  # what two CPU cores do in ten minutes, of one patch a step


@dataclass(frozen=True)
class Job:
    """A row.

    Attributes
    ----------
    people : int
        With labels; fewer are among more.
    labels : str
        See `Data.of`.
    unlabelled : int
        People whose images are learnt from without labels.
    steps : int
    options : mapping
        Of `AdaptOptions`.
    """

    people: int
    labels: str = "full"
    unlabelled: int = 0
    steps: int = STEPS
    options: Mapping[str, Any] | None = None


def _jobs() -> dict[str, Job]:
    random = {"random_weights": True}
    jobs = {}
    for people in (5, 10, 20):
        jobs[f"adapted-{people}"] = Job(people)
        jobs[f"random-{people}"] = Job(people, options=random)
    for scheme in ("supervised", "mean-teacher", "scribbles"):
        jobs[f"scribbles-{scheme}"] = Job(20, "3%", options={"scheme": scheme})
    jobs["scribbles-alike"] = Job(20, "3% alike")
    for scheme in ("mean-teacher", "cross"):
        jobs[f"semi-{scheme}"] = Job(5, unlabelled=60, options={"scheme": scheme})
    jobs["random-semi-mean-teacher"] = Job(5, unlabelled=60, options={"scheme": "mean-teacher", **random})
    jobs["random-masked-5"] = Job(5, unlabelled=60, options={"pretrain_steps": STEPS // 2, **random})
    jobs["muon-5"] = Job(5, options={"optimiser": "muon", "learning_rate": 3e-3})
    jobs["muon-20"] = Job(20, options={"optimiser": "muon", "learning_rate": 3e-3})
    few = {"batch_size": 1}
    jobs["few-steps-all"] = Job(5, steps=_FEW, options=few)
    jobs["few-steps-decoder"] = Job(5, steps=_FEW, options={**few, "freeze": "encoder"})
    jobs["few-steps-muon"] = Job(5, steps=_FEW, options={**few, "optimiser": "muon", "learning_rate": 3e-3})
    return jobs


JOBS = _jobs()
