"""nnU-Net's trainer, with a network of this package, a clock, and a way to stop it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from napari_mamba import models
from napari_mamba.bundles.importers.nnunet.v2 import NETWORK_FILE
from napari_mamba.training.nnunet.child.settings import Settings
from napari_mamba.training.nnunet.networks import (
    TRAINABLE,
    PlanFacts,
    fitted_patch,
    network_arguments,
    network_note,
    parse_trainer,
    plan_facts,
)

_SECONDS_BETWEEN_CHECKPOINTS = 300.0
_SECONDS_BETWEEN_EVENTS = 1.0
_ENDLESS = 1_000_000
"""Epochs where minutes end training."""


class Stopped(Exception):
    """Training was asked to stop, and wrote a checkpoint to go on from."""


class GuidedTrainer(nnUNetTrainer):
    """What all of these trainers do beside nnU-Net's own: they obey `Settings`, tell how far they are, and stop."""

    network_name = "nnunet"
    mixer = "mamba"
    network: Any

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net reads the signature off
    ) -> None:  # fmt: skip
        plans = self.fit_plans(plans, configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings = Settings.of_environment()
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
            if (value := getattr(self.settings, name)) is not None:
                setattr(self, name, value)
        if self.settings.minutes is not None:
            self.num_epochs = _ENDLESS
        self._began, self._before, self._told, self._saved = time.monotonic(), 0.0, 0.0, time.monotonic()
        self._iteration, self._resumed = 0, False

    @classmethod
    def fit_plans(cls, plans: dict, configuration: str) -> dict:
        """The plans with a patch that the network takes, and the batch size that is asked for."""
        plans = deepcopy(plans)
        every, asked = plans["configurations"], Settings.of_environment().batch_size
        own = every[configuration]
        holder = own
        while "patch_size" not in holder:
            holder = every[holder["inherits_from"]]
        own["patch_size"] = list(cls.fitted(holder["patch_size"]))
        if asked is not None:
            own["batch_size"] = asked
        return plans

    @classmethod
    def fitted(cls, patch_size: Sequence[int]) -> Sequence[int]:
        """The patch's sides, raised to those that the network takes."""
        return patch_size

    # --- the network -------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        super().initialize()
        if self.is_ddp:  # some published networks keep weights that they never use
            own = [self.local_rank] if self.device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network.module, device_ids=own, find_unused_parameters=True)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        if not self.enable_deep_supervision:
            return
        network = self.network.module if self.is_ddp else self.network
        for module in network.modules():
            if hasattr(module, "deep_supervision"):
                module.deep_supervision = enabled

    def plot_network_architecture(self) -> None:
        """Left out: it needs a package that does not work any more."""

    # --- the clock ---------------------------------------------------------------------------------------------------

    @property
    def minutes(self) -> float:
        """Of training, over all resumed pieces."""
        return self._before + (time.monotonic() - self._began) / 60

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        self._resumed = True

    def run_training(self) -> None:
        """As nnU-Net's, but it ends when its minutes are over, and stops when it is asked to."""
        clock = Path(self.output_folder) / "napari_mamba_clock.json"
        if self._resumed and clock.is_file():
            self._before = float(json.loads(clock.read_text())["minutes"])
        self.on_train_start()
        self._began = self._saved = time.monotonic()
        try:
            while self.current_epoch < self.num_epochs:
                self._one_epoch()
                if self.is_ddp and self._agreed(self.settings.stop_asked()):
                    raise Stopped
        except Stopped:
            self.current_epoch -= 1  # nnU-Net writes the number of the next epoch; this one is begun again
            self.save_checkpoint(os.path.join(self.output_folder, "checkpoint_latest.pth"))
            raise
        finally:
            if self.local_rank == 0:
                clock.write_text(json.dumps({"minutes": self.minutes}))
        self.on_train_end()

    def _one_epoch(self) -> None:
        self.on_epoch_start()
        self.on_train_epoch_start()
        outputs = []
        for number in range(self.num_iterations_per_epoch):
            self._iteration = number
            outputs.append(self.train_step(next(self.dataloader_train)))
            self._look_up(float(outputs[-1]["loss"]))
            if self._over():
                break
        self.on_train_epoch_end(outputs)
        with torch.no_grad():
            self.on_validation_epoch_start()
            self.on_validation_epoch_end(
                [self.validation_step(next(self.dataloader_val)) for _ in range(self.num_val_iterations_per_epoch)]
            )
        self.on_epoch_end()

    def _over(self) -> bool:
        """Whether the minutes are over."""
        return self.settings.minutes is not None and self._agreed(self.minutes >= self.settings.minutes)

    def _agreed(self, mine: bool) -> bool:
        """What the first of several processes finds, for all of them, so that none waits for the others."""
        if not self.is_ddp:
            return mine
        flag = torch.tensor([float(mine)], device=self.device)
        torch.distributed.broadcast(flag, 0)
        return bool(flag.item())

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.settings.minutes is not None:  # nnU-Net's schedule, over time instead of epochs
            left = max(0.0, 1 - self.minutes / self.settings.minutes)
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * left**0.9

    def on_epoch_end(self) -> None:
        if self.settings.minutes is not None:
            self.num_epochs = self.current_epoch + 1 if self._over() else _ENDLESS
        due = time.monotonic() - self._saved > _SECONDS_BETWEEN_CHECKPOINTS or self.settings.stop_asked()
        self.save_every = 1 if due else 1_000_000_000
        if due:
            self._saved = time.monotonic()
        super().on_epoch_end()
        seconds = self.logger.get_value("epoch_end_timestamps", step=-1) - self.logger.get_value(
            "epoch_start_timestamps", step=-1
        )
        self._tell(
            "epoch", epoch=self.current_epoch - 1, loss=float(self.logger.get_value("train_losses", step=-1)),
            validation_loss=float(self.logger.get_value("val_losses", step=-1)),
            dice=float(self.logger.get_value("mean_fg_dice", step=-1)), seconds=float(seconds),
        )  # fmt: skip

    # --- what it tells -----------------------------------------------------------------------------------------------

    def _look_up(self, loss: float) -> None:
        """Between two steps: stop if asked to, and tell the loss now and then."""
        if self.settings.stop_asked() and not self.is_ddp:
            raise Stopped
        if time.monotonic() - self._told > _SECONDS_BETWEEN_EVENTS:
            self._tell("step", loss=loss)

    def _tell(self, what: str, **facts: Any) -> None:
        if self.local_rank != 0:
            return
        self._told = time.monotonic()
        where = {
            "fold": self.fold, "epoch": self.current_epoch,
            "epochs": None if self.num_epochs == _ENDLESS else self.num_epochs,
            "iteration": self._iteration + 1, "iterations": self.num_iterations_per_epoch, "minutes": self.minutes,
        }  # fmt: skip
        self.settings.tell(what, **{**where, **facts})

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self._tell("validating")
        super().perform_actual_validation(save_probabilities)

    def on_train_end(self) -> None:
        super().on_train_end()
        if self.local_rank == 0:
            (Path(self.output_folder) / "napari_mamba_facts.json").write_text(json.dumps(self._facts(), indent=2))

    def _facts(self) -> dict[str, Any]:
        epochs = np.subtract(*(self.logger.get_checkpoint()[f"epoch_{end}_timestamps"] for end in ("end", "start")))
        network = self.network.module if self.is_ddp else self.network
        cuda = self.device.type == "cuda"
        if cuda:
            peak = torch.cuda.max_memory_allocated(self.device)
        else:  # here, because it imports what a machine that only trains need not have
            from napari_mamba.training.adaptation.adapt import peak_memory

            peak = peak_memory()  # nnU-Net's own workers are not counted
        return {
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "epochs": self.current_epoch,
            "iterations_per_epoch": self.num_iterations_per_epoch,
            "minutes": self.minutes,
            "seconds_per_epoch": float(np.median(epochs)),
            "batch_size": self.batch_size,
            "patch_size": list(self.configuration_manager.patch_size),
            "device": torch.cuda.get_device_name(self.device) if cuda else str(self.device),
            "peak_memory_bytes": peak,
        }


class MambaTrainer(GuidedTrainer):
    """Trains `network_name` with `mixer`."""

    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:  # fmt: skip
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = TRAINABLE[self.network_name].supervised
        if TRAINABLE[self.network_name].optimiser == "adamw":
            self.initial_lr, self.weight_decay = 5e-4, 5e-2

    @classmethod
    def fitted(cls, patch_size: Sequence[int]) -> Sequence[int]:
        return fitted_patch(cls.network_name, patch_size)

    def _do_i_compile(self) -> bool:
        return False  # the scans are kernels of their own, which torch.compile cannot see into

    def configure_optimizers(self) -> tuple[Any, Any]:
        if TRAINABLE[self.network_name].optimiser == "sgd":
            return super().configure_optimizers()
        from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

        optimiser = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimiser, PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank == 0:  # what the importer would have to guess from the weights
            heads = self.label_manager.num_segmentation_heads
            facts = _facts_of(self.configuration_manager, self.num_input_channels, heads)
            note = network_note(self.network_name, self.mixer, facts)
            (Path(self.output_folder_base) / NETWORK_FILE).write_text(json.dumps(note, indent=2) + "\n")

    @classmethod
    def build(cls, facts: PlanFacts, enable_deep_supervision: bool) -> nn.Module:
        """The network, with random weights."""
        arguments = network_arguments(cls.network_name, cls.mixer, facts)
        if TRAINABLE[cls.network_name].supervised:
            arguments["deep_supervision"] = enable_deep_supervision
        return models.create(cls.network_name, **arguments)


def _facts_of(configuration_manager: Any, channels: int, classes: int) -> PlanFacts:
    return plan_facts(configuration_manager.configuration, channels, classes)


@cache
def trainer_class(name: str) -> type[GuidedTrainer]:
    """The trainer called `name`, which is one of `networks.trainer_name`."""
    network, mixer = parse_trainer(name) or (None, None)
    if network is None:
        raise AttributeError(name)
    if network not in TRAINABLE:
        return type(name, (GuidedTrainer,), {"network_name": network, "__module__": __name__})

    def build_network_architecture(
        plans_manager: Any, configuration_manager: Any, num_input_channels: int, num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:  # fmt: skip
        facts = _facts_of(configuration_manager, num_input_channels, num_output_channels)
        return made.build(facts, enable_deep_supervision)

    members = {
        "network_name": network, "mixer": mixer, "__module__": __name__,
        "build_network_architecture": staticmethod(build_network_architecture),
    }  # fmt: skip
    made: Any = type(name, (MambaTrainer,), members)
    return made
