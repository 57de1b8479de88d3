"""The training loop every recipe shares: stops at a time limit, and goes on from its last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.bundles import Bundle
from napari_mamba.errors import InputError
from napari_mamba.training.batches import batches
from napari_mamba.training.cuda_graph import CudaGraphStep
from napari_mamba.training.distributed import SINGLE_PROCESS, ProcessGroup, init_process_group
from napari_mamba.training.history import HISTORY, log, tensorboard_writer, truncate_history
from napari_mamba.training.optimisation.optimisers import Optimiser
from napari_mamba.training.precision import float32_small_convolutions
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.net2net import load_smaller_weights

CHECKPOINT = "checkpoint.pt"
LOSS_CHECK_INTERVAL = 50
"""Steps between two looks at the loss: each look waits for the GPU."""


def pick_device(name: str) -> torch.device:
    """`auto` is the current CUDA device, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class Run:
    """Everything that a training run carries from step to step, and its checkpoint on disk."""

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        device: torch.device,
        *,
        group: ProcessGroup = SINGLE_PROCESS,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(recipe.seed)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the samples of a recipe have one size, or few
        self.recipe, self.output, self.device, self.group = recipe, Path(output), device, group
        self.format = _format(recipe, device)
        self.network = self._to_device(recipe.network())
        # Not the network: a U-Mamba compiles for minutes, and little of its time is anybody's to fuse.
        self.loss = torch.compile(self._loss, dynamic=False) if compiled else self._loss
        self.optimiser = Optimiser(self.network, recipe.schedule.optimiser, recipe.schedule.weight_decay)
        self.gradients: Callable[[Tensor, Any], Tensor] = self._gradients
        if recipe.use_cuda_graph and device.type == "cuda":
            self.gradients = CudaGraphStep(self._gradients, list(self.network.parameters()))
        self.average = _cloned(self.network.state_dict())
        self.step = 0
        self.seconds = 0.0  # of training, over all the pieces of the run
        self.start: dict[str, Any] = {}

    @property
    def hardware(self) -> str:
        """What a process of the run computes on, in words."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def summary(self) -> dict[str, Any]:
        """What a bundle's card says of the run."""
        summary: dict[str, Any] = {
            "steps": self.step,
            "of": self.recipe.schedule.steps,
            "minutes": round(self.seconds / 60, 1),
        }
        summary |= {"device": self.hardware, "processes": self.group.size}
        summary |= {"optimiser": self.recipe.schedule.optimiser, "learning_rate": self.recipe.schedule.learning_rate}
        return summary | ({"start": self.start} if self.start else {})

    def load_pretrained(self, bundle: Bundle) -> None:
        """Take the weights of a bundle, of this network or a smaller one of its kind, and note what trained them.

        Of an ensemble, those of its first member.
        """
        small, *_ = bundle.networks()
        load_smaller_weights(self.network, small)
        self.average = _cloned(self.network.state_dict())
        trained = bundle.metrics.get("trained", {})
        first, *_ = trained.get("members", [trained])
        self.start = {"version": bundle.version, "sha256": bundle.sha256, **first}

    def save(self) -> None:
        """Write the checkpoint beside and rename it, so a kill at any moment leaves a whole one."""
        self.output.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self.recipe.name,
            "variant": self.recipe.variant,
            "step": self.step,
            "seconds": self.seconds,
            "start": self.start,
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
        self.start = state.get("start", {})
        if self.group.is_main:
            truncate_history(self.output / HISTORY, self.step)

    def advance(self, inputs: Tensor, target: Any, progress: float = 0.0) -> Tensor:
        """One optimiser step; returns the loss, still on the device."""
        schedule = self.recipe.schedule
        inputs = inputs.to(self.device)
        if inputs.ndim == 5:
            inputs = inputs.contiguous(memory_format=self.format)
        self.network.train()
        loss = self.gradients(inputs, _each(target, lambda t: t.to(self.device)))
        if self.step % LOSS_CHECK_INTERVAL == 0:
            self.check(loss)
        self.group.average_gradients(self.network.parameters())
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step(schedule.rate(self.step, progress))
        self._update_average(schedule.ema)
        self.step += 1
        return loss

    def _gradients(self, inputs: Tensor, target: Any) -> Tensor:
        """Leave the parameters with the gradients of this step alone; returns the loss."""
        self.network.zero_grad(set_to_none=True)
        # bfloat16 convolutions are twice as fast on recent CPUs and GPUs; the scan stays in float32 by itself.
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self.network(inputs)
        loss = self.loss(output, target)
        loss.backward()
        return loss.detach()

    def _loss(self, output: Any, target: Any) -> Tensor:
        return self.recipe.loss(_each(output, Tensor.float), target)

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

    def ema_network(self) -> nn.Module:
        """The network with the averaged weights, in evaluation mode."""
        network = self._to_device(self.recipe.network())
        network.load_state_dict(self.average)
        return network.eval()

    def _to_device(self, network: nn.Module) -> nn.Module:
        flat = not any(parameter.ndim == 5 for parameter in network.parameters())  # a network of slices
        layout = torch.contiguous_format if flat else self.format
        placed: nn.Module = network.to(self.device, memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
        return float32_small_convolutions(placed) if self.device.type == "cpu" else placed


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


def _format(recipe: Recipe, device: torch.device) -> torch.memory_format:
    """Of 3D maps; U-Mamba took a third more time channels-last than plain on an NVIDIA H200."""
    plain = device.type == "cuda" and not recipe.channels_last
    return torch.contiguous_format if plain else torch.channels_last_3d


@contextmanager
def _matmul_precision(recipe: Recipe) -> Iterator[None]:
    """Let float32 products be as exact as the recipe wants them, within the context alone."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if recipe.tf32 else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fit(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    total_minutes: float | None = None,
    start: Bundle | None = None,
    compiled: bool = False,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """Train until the schedule's end, `minutes` have passed, or `steps` more were made; always leaves a checkpoint.

    Under torchrun every process trains on samples of its own, and the first one validates and writes.

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
    total_minutes : float, optional
        Minutes of training over all the pieces of the run, at which it ends with a learning rate of zero, if the
        schedule's steps do not end it before: for a machine that is there for a given time only.
    start : Bundle, optional
        Of the recipe's own network: a new run begins from its weights. A resumed one has its own.
    compiled : bool
        Let `torch.compile` fuse the loss: a quarter of a minute at first, and faster steps where classes are many.
    on_log : callable, optional
        Called with each history entry.

    Raises
    ------
    InputError
        If `output` already holds a run and `resume` is off, or the checkpoint is another recipe's.
    """
    output, group = Path(output), init_process_group(device)
    run = Run(recipe, output, pick_device(device), group=group, compiled=compiled)
    if resume:
        run.load()
    elif (output / CHECKPOINT).exists():
        raise InputError(f"{output} already holds a training run: add --resume to go on, or choose another folder")
    elif start is not None:
        run.load_pretrained(start)
    group.barrier()  # before the first one writes what the others look for
    output.mkdir(parents=True, exist_ok=True)
    last = min(recipe.schedule.steps, run.step + steps if steps is not None else recipe.schedule.steps)
    clock, made = TimeLimit(run, minutes, total_minutes), batches(recipe, run.step, last, run.device, group)
    loss_log = LossLog(output, on_log, group.is_main)
    with _matmul_precision(recipe):
        while run.step < last and clock.has_time_left():
            loss_log.add(run.advance(*next(made), clock.progress))
            if run.step % recipe.schedule.validate_every == 0:
                _validate_and_save(run, loss_log)
        made.close()
        unreported = loss_log.losses and (run.step == recipe.schedule.steps or total_minutes)
        _validate_and_save(run, loss_log if unreported else None)
    group.barrier()  # before any of them looks for what the first one has just written
    return run


def _validate_and_save(run: Run, loss_log: LossLog | None) -> None:
    """What the first process does for all: validate where there is something to report, and write the checkpoint."""
    if run.group.is_main:
        if loss_log:
            loss_log.report(run)
        run.save()
    elif loss_log:
        loss_log.clear()


class TimeLimit:
    """How long a run has trained, by the first process' clock."""

    def __init__(self, run: Run, minutes: float | None, total_minutes: float | None) -> None:
        self.run, self.total_minutes = run, total_minutes
        self.began, self.before = time.monotonic(), run.seconds
        self.limit = 60 * minutes if minutes is not None else float("inf")
        self.progress = 0.0

    def has_time_left(self) -> bool:
        """Note the time; False where it is over."""
        (passed,) = self.run.group.broadcast(time.monotonic() - self.began)
        self.run.seconds = self.before + passed
        self.progress = self.run.seconds / (60 * self.total_minutes) if self.total_minutes else 0.0
        return passed < self.limit and self.progress < 1


class LossLog:
    """The losses since the last validation, and where each validation's entry is written."""

    def __init__(self, output: Path, on_log: Callable[[dict[str, Any]], None] | None, written: bool = True) -> None:
        self.output, self.on_log = output, on_log
        self.board = tensorboard_writer(output) if written else None
        self.clear()

    def clear(self) -> None:
        self.losses: list[Tensor] = []
        self.began = time.monotonic()

    def add(self, loss: Tensor) -> None:
        self.losses.append(loss)

    def report(self, run: Run) -> None:
        """Validate, write the entry, and start over."""
        mean = torch.stack(self.losses).mean()
        run.check(mean)
        seconds = (time.monotonic() - self.began) / len(self.losses)
        scores = run.recipe.validate(run.ema_network(), run.device)
        entry = {"step": run.step, "loss": float(mean), "seconds_a_step": seconds, "seconds": run.seconds, **scores}
        log(self.output, self.board, entry)
        if self.on_log:
            self.on_log(entry)
        self.clear()
