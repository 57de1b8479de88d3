"""nnU-Net's own process: `python -m napari_mamba.training.nnunet.child.worker JOB.json` plans, or trains one fold.

A process of its own, because nnU-Net reads its folders from the environment when it is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STOPPED = 3
"""Exit code where training was asked to stop and wrote a checkpoint."""

PATIENCE = 120.0
"""Seconds for an earlier process of this folder to end: one whose command was killed stops after its step."""


def plan(job: dict[str, Any]) -> None:
    """Fingerprint, plans and preprocessed images."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess_dataset,
    )

    number, processes = job["dataset"], job["processes"]
    quiet: dict[str, Any] = {"show_progress_bar": False}
    extract_fingerprints([number], num_processes=processes, clean=False, **quiet)
    for planner in job["planners"]:
        plans = plan_experiments([number], planner["planner"], planner["gpu_memory"])
        if plans != planner["plans"]:
            raise RuntimeError(f"the planner {planner['planner']} of this nnU-Net calls its plans {plans}")
        preprocess_dataset(
            number, plans, configurations=planner["configurations"],
            num_processes=[processes] * len(planner["configurations"]), **quiet,
        )  # fmt: skip


def train(job: dict[str, Any]) -> None:
    """One fold: training, then nnU-Net's validation on the people left out."""
    import torch
    from nnunetv2.run.run_training import run_training

    device = torch.device(job["device"])
    torch.set_num_threads(1 if device.type == "cuda" else job["threads"])
    run_training(
        job["dataset"], job["configuration"], job["fold"], job["trainer"], job["plans"], num_gpus=job["gpus"],
        continue_training=job["resume"], only_run_validation=job["validate"], device=device,
    )  # fmt: skip


def main(path: str) -> int:
    """Do the job in a file; returns the exit code."""
    from filelock import FileLock, Timeout

    job = json.loads(Path(path).read_text())
    try:
        with FileLock(Path(path).with_name("lock"), timeout=PATIENCE):
            return _do(job)
    except Timeout:
        raise RuntimeError("another training is at work in this folder: wait until it has ended") from None


def _do(job: dict[str, Any]) -> int:
    if job["action"] == "plan":
        plan(job)
        return 0
    from torch.multiprocessing import ProcessRaisedException

    from napari_mamba.training.nnunet.child.trainer import Stopped

    try:
        train(job)
    except Stopped:
        return STOPPED
    except ProcessRaisedException as error:  # of one of several GPUs
        if Stopped.__name__ in str(error).strip().splitlines()[-1]:
            return STOPPED
        raise
    return 0


if __name__ == "__main__":  # nnU-Net's workers import this file again
    sys.exit(main(sys.argv[1]))
