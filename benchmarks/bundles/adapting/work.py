"""One row: a training of `napari_mamba.training.adaptation` on prepared arrays, and its scores on the test people."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bundles.adapting.data import BUNDLE, Data
from benchmarks.bundles.adapting.jobs import JOBS, RATE, Job
from napari_mamba import bundles
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.training.adaptation.data.store import Painted
from napari_mamba.training.adaptation.options import AdaptOptions
from napari_mamba.training.adaptation.plan import Plan
from napari_mamba.training.adaptation.state import CHECKPOINT, read_checkpoint
from napari_mamba.training.adaptation.targets.classes import choose_classes
from napari_mamba.training.adaptation.training import Training
from napari_mamba.training.adaptation.validation import dice_of_people

_EVERY, _AFTER = 50, 15  # steps between two looks at the clock; seconds of the test


def run(
    name: str, data: Data, folder: Path, deadline: float, device: str = "auto", most: int | None = None,
    *, equal: bool = False,
) -> dict | None:  # fmt: skip
    """Train and test a row; what there is of it in `folder` is gone on from.

    Parameters
    ----------
    name : str
        Of `JOBS`.
    data : Data
    folder : Path
        `NAME.json` is written into it, checkpoints into `NAME/`.
    deadline : float
        `time.time()` by which it ends: a machine that is too slow takes fewer steps, and the row says so.
    device : str
    most : int, optional
        Steps, instead of the row's where these are more.
    equal : bool
        Take all steps, and none fewer: where the deadline comes before, there is a checkpoint and no row (None).
    """
    job = JOBS[name]
    began = time.time()
    training = make(name, job, data, folder / name, device, most)
    planned = training.options.steps
    first = step = training.state.step
    seconds, clock = 0.0, time.time()
    for event in training.events():
        if equal:
            if time.time() > deadline - _AFTER:
                training.cancel.set()
        elif event.stage == "training" and training.state.step - step >= _EVERY:
            pace = (time.time() - clock) / (training.state.step - step)
            warm = step == first  # kernels were compiled and tried out
            step, seconds, clock = training.state.step, seconds + time.time() - clock, time.time()
            fits = planned if warm else step + int((deadline - _AFTER - time.time()) / pace)
            training.options = replace(training.options, steps=min(planned, max(step, fits)))
        elif event.stage == "pretraining" and time.time() > began + 0.4 * (deadline - began):
            training.options = replace(training.options, pretrain_steps=event.done)
    if equal and training.state.step < planned:
        return None
    row = {"name": name, **asdict(job), "planned": planned, "steps": training.state.step}
    row |= {"seconds": round(time.time() - began, 1), "seconds_a_step": seconds / max(1, step), "patch": training.size}
    row["patches"] = training.patches.batch_size
    row |= {"device": training.facts()["device"], "torch": torch.__version__}
    row |= test(training, data)
    (folder / f"{name}.json").write_text(json.dumps(row))
    return row


def make(name: str, job: Job, data: Data, folder: Path, device: str, most: int | None) -> Training:
    """The training of a row, at its beginning or at its checkpoint."""
    bundle = bundles.load(SHIPPED / BUNDLE)  # by place: names need platformdirs
    people = data.groups["labelled"][: job.people]
    learnt = data.of(people, job.labels)
    without = data.of(data.groups["unlabelled"][: job.unlabelled], "none")
    classes = choose_classes(bundle.spec, {0, 1, 2}, {1: "anterior hippocampus", 2: "posterior hippocampus"}, "other")
    plan = Plan(classes, [case.case for case in learnt], [], Painted())
    chosen: dict[str, Any] = {"learning_rate": RATE, "minutes": 1e6, "no_validation": True, "device": device}
    steps = min(job.steps, most or job.steps)
    chosen |= {"classes": "other", "steps": steps, **(job.options or {})}
    if "pretrain_steps" in chosen:
        chosen["pretrain_steps"] = min(chosen["pretrain_steps"], most or chosen["pretrain_steps"])
    folder.mkdir(parents=True, exist_ok=True)
    saved = read_checkpoint(folder) if (folder / CHECKPOINT).exists() else None
    return Training(bundle, plan, (learnt, [], without), folder, AdaptOptions(**chosen), threading.Event(), saved)


def test(training: Training, data: Data) -> dict[str, Any]:
    """Dice of both parts by person, of the running mean of the last weights."""
    cases = data.of(data.groups["test"])
    found = dice_of_people(training.state.network, cases, training.size, training.plan.classes.drawn, training.device)
    means = np.array([*found.values()])
    return {
        "people_tested": {person: dice.round(5).tolist() for person, dice in found.items()},
        "dice": float(means.mean()),
        "sd": float(means.mean(1).std(ddof=1)),
        "anterior": float(means[:, 0].mean()),
        "posterior": float(means[:, 1].mean()),
    }
