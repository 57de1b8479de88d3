"""The training loop every recipe shares: stops at a time limit, and goes on from its last checkpoint."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.jsonl"
AHEAD = 4
"""Batches made ahead of their step on the CPU, each in a thread, while a GPU works."""
CHECK_EVERY = 50
"""Steps between two looks at the loss: each look waits for the GPU."""


def pick_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Run:
    """Everything that a training run carries from step to step, and its checkpoint on disk."""

    def __init__(self, recipe: Recipe, output: Path, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the samples of a recipe have one size, or few
        self.recipe, self.output, self.device = recipe, Path(output), device
        self.network = _placed(recipe.network(), device)
        self.optimiser = torch.optim.AdamW(
            _decay_groups(self.network, recipe.schedule.weight_decay),
            lr=recipe.schedule.learning_rate,
            fused=device.type == "cuda",
        )
        self.average = _cloned(self.network.state_dict())
        self.step = 0
        self.seconds = 0.0  # of training, over all the pieces of the run

    @property
    def hardware(self) -> str:
        """What the run computes on, in words."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def save(self) -> None:
        """Write the checkpoint beside and rename it, so a kill at any moment leaves a whole one."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self.recipe.name,
            "variant": self.recipe.variant,
            "step": self.step,
            "seconds": self.seconds,
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
        asked, found = (self.recipe.name, self.recipe.variant), (state["recipe"], state.get("variant", ""))
        if asked != found:
            raise InputError(f"{path} belongs to the recipe {' '.join(found)!r}, not to {' '.join(asked)!r}")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step, self.seconds = state["average"], state["step"], state.get("seconds", 0.0)
        _trim_history(self.output / HISTORY, self.step)

    def advance(self, inputs: Tensor, target: Any, progress: float = 0.0) -> Tensor:
        """One optimiser step; returns the loss, still on the device."""
        schedule = self.recipe.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate(self.step, progress)
        inputs = inputs.to(self.device)
        if inputs.ndim == 5:
            inputs = inputs.contiguous(memory_format=_format(self.device))
        self.network.train()
        # bfloat16 convolutions are twice as fast on recent CPUs and GPUs; the scan stays in float32 by itself.
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self.network(inputs)
        loss = self.recipe.loss(_each(output, Tensor.float), _each(target, lambda t: t.to(self.device)))
        if self.step % CHECK_EVERY == 0:
            self.check(loss)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self._update_average(schedule.ema)
        self.step += 1
        return loss.detach()

    def check(self, loss: Tensor) -> None:
        """Raise `InputError` where the loss is not a number any more."""
        if not torch.isfinite(loss):
            raise InputError(f"the loss is not finite at step {self.step}: lower the learning rate")

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        decay = min(decay, (1 + self.step) / (10 + self.step))  # young averages forget their random start
        state = self.network.state_dict()
        once = {mean.data_ptr(): key for key, mean in self.average.items()}.values()  # a layer may have two names
        floating = [key for key in once if self.average[key].is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in floating], [state[k] for k in floating], 1 - decay)
        for key in set(once) - set(floating):
            self.average[key].copy_(state[key])

    def averaged(self) -> nn.Module:
        """The network with the averaged weights, in evaluation mode."""
        network = _placed(self.recipe.network(), self.device)
        network.load_state_dict(self.average)
        return network.eval()


def _cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state; what was one tensor under two names stays one."""
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    return {
        key: copies.setdefault((value.data_ptr() or id(value), value.shape), value.detach().clone())
        for key, value in state.items()
    }


def _each(value: Any, apply: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to a tensor, or to each of a tuple or list of tensors."""
    return apply(value) if isinstance(value, Tensor) else tuple(apply(part) for part in value)


def _batches(recipe: Recipe, first: int, last: int, device: torch.device) -> Generator[tuple[Tensor, Any], None, None]:
    """The batches of the steps from `first` to `last`; made ahead in threads where a GPU waits for the CPU."""
    if recipe.on_device or device.type == "cpu":
        yield from (recipe.batch(step, device) for step in range(first, last))
        return
    recipe.batch(first, torch.device("cpu"))  # fills the recipe's caches before threads share it
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[Future[tuple[Tensor, Any]]] = deque()
        try:
            for step in range(first, last + AHEAD):
                if step < last:
                    waiting.append(pool.submit(recipe.batch, step, torch.device("cpu")))
                if step >= first + AHEAD:
                    yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _format(device: torch.device) -> torch.memory_format:
    """Of 3D maps: channels-last on CPUs; on an NVIDIA H200 that took a third more time than the plain format."""
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last_3d


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device, memory_format=_format(device))  # type: ignore[call-overload]  # torch's stubs lack it


def fit(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    finish: float | None = None,
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
    finish : float, optional
        Minutes of training over all the pieces of the run, at which it ends with a learning rate of zero, if the
        schedule's steps do not end it before: for a machine that is there for a given time only.
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
    began, before = time.monotonic(), run.seconds
    deadline = began + 60 * minutes if minutes is not None else float("inf")
    batches, pieces = _batches(recipe, run.step, last, run.device), Pieces(output, on_log)
    while run.step < last and time.monotonic() < deadline:
        run.seconds = before + time.monotonic() - began
        progress = run.seconds / (60 * finish) if finish else 0.0
        if progress >= 1:
            break
        pieces.add(run.advance(*next(batches), progress))
        if run.step % recipe.schedule.validate_every == 0:
            pieces.report(run)
            run.save()
    batches.close()
    if pieces.losses and (run.step == recipe.schedule.steps or finish):
        pieces.report(run)
    run.save()
    return run


class Pieces:
    """The losses since the last validation, and where each validation's entry is written."""

    def __init__(self, output: Path, on_log: Callable[[dict[str, Any]], None] | None) -> None:
        self.output, self.on_log, self.board = output, on_log, _board(output)
        self.losses: list[Tensor] = []
        self.began = time.monotonic()

    def add(self, loss: Tensor) -> None:
        self.losses.append(loss)

    def report(self, run: Run) -> None:
        """Validate, write the entry, and start over."""
        mean = torch.stack(self.losses).mean()
        run.check(mean)
        seconds = (time.monotonic() - self.began) / len(self.losses)
        scores = run.recipe.validate(run.averaged(), run.device)
        entry = {"step": run.step, "loss": float(mean), "seconds_a_step": seconds, "seconds": run.seconds, **scores}
        _log(self.output, self.board, entry)
        if self.on_log:
            self.on_log(entry)
        self.losses, self.began = [], time.monotonic()


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
