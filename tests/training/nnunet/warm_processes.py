"""Processes as `napari_mamba.training.nnunet.child.process` starts them, forked from one that has imported PyTorch.

Each is a process of its own with its own environment and log; only the seconds in which a new Python imports are saved.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import subprocess
import sys
from typing import Any

from napari_mamba import models


class WarmProcess:
    """Of `subprocess.Popen` what `run_job` uses."""

    def __init__(self, command: list[str], *, stdout: Any, env: dict[str, str], **_: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_preloaded())
        self.process = context.Process(target=_run, args=(command[-1], stdout.name, env))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()


def _preloaded() -> list[str]:
    """PyTorch, and every network with what it needs."""
    networks = pkgutil.walk_packages(models.__path__, f"{models.__name__}.")
    return ["torch", "napari_mamba.training.nnunet.child.worker", *(module.name for module in networks)]


def _run(job: str, log: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    from napari_mamba.training.nnunet.child import worker

    sys.exit(worker.main(job))
