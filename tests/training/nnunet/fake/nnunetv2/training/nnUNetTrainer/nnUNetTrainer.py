"""The trainer that others are made from: its attributes, its hooks, and its checkpoints."""

import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nnunetv2.places import case_arrays, fitted, folder, read_json, write_json
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from napari_mamba import io
from napari_mamba.volume import Volume


class Logger:
    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}

    def log(self, key: str, value: Any, step: int) -> None:
        self.values[key] = [*self.values.get(key, [])[:step], value]

    def get_value(self, key: str, step: int) -> Any:
        return self.values[key][step]

    def get_checkpoint(self) -> dict[str, list[Any]]:
        return self.values


class nnUNetTrainer:
    def __init__(
        self, plans: dict, configuration: str, fold: int, dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:  # fmt: skip
        self.is_ddp = torch.distributed.is_initialized()
        self.local_rank = torch.distributed.get_rank() if self.is_ddp else 0
        self.device = device
        given = locals()
        self.my_init_kwargs = {key: given[key] for key in inspect.signature(self.__init__).parameters}
        plans.pop("continue_training")
        self.plans, self.dataset_json, self.fold = plans, dataset_json, fold
        own = plans["configurations"][configuration]
        self.plans_manager = SimpleNamespace(plans=plans)
        self.configuration_manager = SimpleNamespace(configuration=own, patch_size=own["patch_size"])
        self.label_manager = SimpleNamespace(num_segmentation_heads=len(dataset_json["labels"]))
        self.output_folder_base = str(
            folder("results") / plans["dataset_name"] / f"{type(self).__name__}__{plans['plans_name']}__{configuration}"
        )
        self.output_folder = str(Path(self.output_folder_base) / f"fold_{fold}")
        Path(self.output_folder).mkdir(parents=True, exist_ok=True)
        self.initial_lr, self.weight_decay, self.num_epochs, self.current_epoch, self.save_every = (
            1e-2,
            3e-5,
            1000,
            0,
            50,
        )
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 250, 50
        self.enable_deep_supervision, self.was_initialized = True, False
        self.batch_size = own["batch_size"]
        self.logger = Logger()
        self.inference_allowed_mirroring_axes = tuple(range(len(own["patch_size"])))

    @staticmethod
    def build_network_architecture(
        plans_manager: Any, configuration_manager: Any, num_input_channels: int, num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:  # fmt: skip
        """Not much of a network."""
        kind = nn.Conv2d if len(configuration_manager.patch_size) == 2 else nn.Conv3d
        return kind(num_input_channels, num_output_channels, 3, padding=1)

    def initialize(self) -> None:
        self.num_input_channels = len(self.dataset_json["channel_names"])
        self.network: Any = self.build_network_architecture(
            self.plans_manager, self.configuration_manager, self.num_input_channels,
            self.label_manager.num_segmentation_heads, self.enable_deep_supervision,
        ).to(self.device)  # fmt: skip
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            self.network = DistributedDataParallel(self.network)
        self.was_initialized = True

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer = torch.optim.SGD(self.network.parameters(), self.initial_lr, momentum=0.99, nesterov=True)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    # --- hooks, in the order in which they are called

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        split = self._split()
        self.dataloader_train, self.dataloader_val = self._batches(split["train"]), self._batches(split["val"])
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        base = Path(self.output_folder_base)
        write_json(base / "plans.json", self.plans)
        write_json(base / "dataset.json", self.dataset_json)
        shutil.copy(folder("preprocessed") / self.plans["dataset_name"] / "dataset_fingerprint.json", base)
        self.plot_network_architecture()

    def on_epoch_start(self) -> None:
        self.logger.log("epoch_start_timestamps", time(), self.current_epoch)

    def on_train_epoch_start(self) -> None:
        self.network.train()
        self.lr_scheduler.step(self.current_epoch)

    def train_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
        loss = self._loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach().numpy()}

    def on_train_epoch_end(self, outputs: list[dict[str, Any]]) -> None:
        self.logger.log("train_losses", np.mean([one["loss"] for one in outputs]), self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        self.network.eval()

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
        return {"loss": self._loss(batch).numpy()}

    def on_validation_epoch_end(self, outputs: list[dict[str, Any]]) -> None:
        self.logger.log("val_losses", np.mean([one["loss"] for one in outputs]), self.current_epoch)
        self.logger.log("mean_fg_dice", 0.5, self.current_epoch)

    def on_epoch_end(self) -> None:
        self.logger.log("epoch_end_timestamps", time(), self.current_epoch)
        if (self.current_epoch + 1) % self.save_every == 0 and self.current_epoch != self.num_epochs - 1:
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
        self.current_epoch += 1

    def on_train_end(self) -> None:
        self.current_epoch -= 1
        self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_final.pth"))
        self.current_epoch += 1
        if self.local_rank == 0:
            (Path(self.output_folder) / "checkpoint_latest.pth").unlink(missing_ok=True)

    # --- what the hooks need

    def _split(self) -> dict[str, list[str]]:
        splits = read_json(folder("preprocessed") / self.plans["dataset_name"] / "splits_final.json")
        everybody = list(self.dataset_json["dataset"])
        return {"train": everybody, "val": everybody} if self.fold == "all" else splits[int(self.fold)]

    def _batches(self, cases: list[str]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size, draw = self.configuration_manager.patch_size, np.random.default_rng(self.local_rank)
        while True:
            image, labels = case_arrays(self.plans["dataset_name"], cases[int(draw.integers(len(cases)))])
            if len(size) == 2:
                middle = labels.shape[0] // 2
                image, labels = image[:, middle], labels[middle]
            parts = [torch.from_numpy(fitted(one, size, len(size))) for one in (image, labels)]
            yield tuple(part[None].expand(self.batch_size, *part.shape) for part in parts)  # type: ignore[misc]

    def _loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        image, labels = batch
        answer = self.network(image)
        finest = answer[0] if isinstance(answer, list | tuple) else answer
        return nn.functional.cross_entropy(finest, labels)

    def save_checkpoint(self, filename: str) -> None:
        if self.local_rank == 0:
            network = self.network.module if self.is_ddp else self.network
            checkpoint = {
                "network_weights": network.state_dict(), "optimizer_state": self.optimizer.state_dict(),
                "logging": self.logger.get_checkpoint(), "current_epoch": self.current_epoch + 1,
                "init_args": self.my_init_kwargs, "trainer_name": type(self).__name__,
                "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            }  # fmt: skip
            torch.save(checkpoint, filename)

    def load_checkpoint(self, filename: str) -> None:
        if not self.was_initialized:
            self.initialize()
        saved = torch.load(filename, weights_only=False)
        (self.network.module if self.is_ddp else self.network).load_state_dict(saved["network_weights"])
        self.optimizer.load_state_dict(saved["optimizer_state"])
        self.current_epoch, self.logger.values = saved["current_epoch"], saved["logging"]

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.set_deep_supervision_enabled(False)
        self.network.eval()
        place = Path(self.output_folder) / "validation"
        place.mkdir(exist_ok=True)
        size = self.configuration_manager.patch_size
        for case in self._split()["val"] if self.local_rank == 0 else ():
            image, labels = case_arrays(self.plans["dataset_name"], case)
            padded = torch.from_numpy(fitted(image, [labels.shape[0], *size] if len(size) == 2 else size, 3))
            batch = padded.transpose(0, 1) if len(size) == 2 else padded[None]
            with torch.no_grad():
                answer = (self.network.module if self.is_ddp else self.network)(batch).argmax(1)
            found = fitted(answer.reshape(padded.shape[1:]).numpy(), list(labels.shape), 3).astype(np.uint8)
            truth = io.read(self.dataset_json["dataset"][case]["label"])
            io.write(Volume(found[None], truth.affine), place / f"{case}.nii.gz")
        if self.local_rank == 0:
            write_json(place / "summary.json", {})
