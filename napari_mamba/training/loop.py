"""The training loop every recipe shares: stops at a time limit, and goes on from its last checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.jsonl"


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Run:
    """Everything that a training run carries from step to step, and its checkpoint on disk."""

    def __init__(self, recipe: Recipe, output: Path, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.output, self.device = recipe, Path(output), device
        self.network = _placed(recipe.network(), device)
        self.optimiser = torch.optim.AdamW(
            _decay_groups(self.network, recipe.schedule.weight_decay), lr=recipe.schedule.learning_rate
        )
        self.average = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self.step = 0

    def save(self) -> None:
        """Write the checkpoint beside and rename it, so a kill at any moment leaves a whole one."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self.recipe.name,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
        }
        part = self.output / (CHECKPOINT + ".part")
        torch.save(state, part)
        part.replace(self.output / CHECKPOINT)

    def load(self) -> None:
        """Go on from the checkpoint in the output folder; raises `InputError` if it is another recipe's."""
        path = self.output / CHECKPOINT
        if not path.exists():
            raise InputError(f"there is no {CHECKPOINT} in {self.output} to resume from: leave --resume out")
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != self.recipe.name:
            raise InputError(f"{path} belongs to the recipe {state['recipe']!r}, not to {self.recipe.name!r}")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step = state["average"], state["step"]
        _trim_history(self.output / HISTORY, self.step)

    def advance(self) -> float:
        """One optimiser step; returns the loss."""
        schedule = self.recipe.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate(self.step)
        inputs, target = self.recipe.batch(self.step)
        inputs = inputs.to(self.device, memory_format=torch.channels_last_3d)
        self.network.train()
        # bfloat16 convolutions are twice as fast on recent CPUs and GPUs; the scan stays in float32 by itself.
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self.network(inputs)
        loss = self.recipe.loss(output.float(), target.to(self.device))
        if not torch.isfinite(loss):
            raise InputError(f"the loss is not finite at step {self.step}: lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self._update_average(schedule.ema)
        self.step += 1
        return float(loss.detach())

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        decay = min(decay, (1 + self.step) / (10 + self.step))  # young averages forget their random start
        for key, value in self.network.state_dict().items():
            mean = self.average[key]
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)

    def averaged(self) -> nn.Module:
        """The network with the averaged weights, in evaluation mode."""
        network = _placed(self.recipe.network(), self.device)
        network.load_state_dict(self.average)
        return network.eval()


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's stubs lack it


def fit(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train until the schedule's end, `minutes` have passed, or `steps` more were made; always leaves a checkpoint.

    Parameters
    ----------
    recipe : Recipe
    output : Path
        Folder of the checkpoint, `history.jsonl` (a line each validation) and TensorBoard files.
    resume : bool
        Go on from the checkpoint in `output`.
    device : str
        "auto", "cpu" or "cuda[:i]".
    minutes, steps : float, int, optional
        Limits of this call; the schedule itself is the recipe's.
    on_log : callable, optional
        Called with each history entry.

    Raises
    ------
    InputError
        If `output` already holds a run and `resume` is off, or the checkpoint is another recipe's.
    """
    output = Path(output)
    run = Run(recipe, output, pick_device(device))
    if resume:
        run.load()
    elif (output / CHECKPOINT).exists():
        raise InputError(f"{output} already holds a training run: add --resume to go on, or choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    last = min(recipe.schedule.steps, run.step + steps if steps is not None else recipe.schedule.steps)
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    board, losses, began = _board(output), [], time.monotonic()
    while run.step < last and time.monotonic() < deadline:
        losses.append(run.advance())
        if run.step % recipe.schedule.validate_every == 0 or run.step == recipe.schedule.steps:
            scores = recipe.validate(run.averaged(), run.device)
            entry = {
                "step": run.step,
                "loss": sum(losses) / len(losses),
                "seconds_a_step": (time.monotonic() - began) / len(losses),
                **scores,
            }
            _log(output, board, entry)
            if on_log:
                on_log(entry)
            run.save()
            losses, began = [], time.monotonic()
    run.save()
    return run


def history(output: Path) -> list[dict[str, float]]:
    """The entries of a run's `history.jsonl`."""
    path = Path(output) / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _decay_groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels alone: not for biases, norms, nor the state matrix A and the skip D."""
    keep: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in network.named_parameters():
        (free if parameter.ndim < 2 or name.endswith(("A_log", "A_logs", "Ds")) else keep).append(parameter)
    return [{"params": keep, "weight_decay": decay}, {"params": free, "weight_decay": 0.0}]


def _board(output: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # TensorBoard is an extra; history.jsonl holds the same numbers
        return None
    return SummaryWriter(str(output / "tensorboard"))


def _log(output: Path, board: Any, entry: dict[str, float]) -> None:
    with (output / HISTORY).open("a") as file:
        file.write(json.dumps(entry) + "\n")
    if board is not None:
        for key, value in entry.items():
            if key != "step":
                board.add_scalar(key, value, entry["step"])
        board.flush()


def _trim_history(path: Path, step: int) -> None:
    """Drop entries past the checkpoint: the steps between are made again."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))
