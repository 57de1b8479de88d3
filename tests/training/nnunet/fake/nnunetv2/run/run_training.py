"""One fold, on one process or several: several are CPUs here, and GPUs there."""

import importlib.util
import os
import socket
from pathlib import Path
from typing import Any

import torch
from nnunetv2.places import folder, read_json


def run_training(
    dataset: str, configuration: str, fold: int | str, trainer_class_name: str, plans_identifier: str, num_gpus: int,
    continue_training: bool, only_run_validation: bool, device: torch.device,
) -> None:  # fmt: skip
    made = (dataset, configuration, fold, trainer_class_name, plans_identifier, device)
    if num_gpus == 1:
        _run(made, continue_training, only_run_validation)
        return
    with socket.socket() as free:
        free.bind(("", 0))
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "localhost", str(free.getsockname()[1])
    torch.multiprocessing.spawn(_run_one_of, (num_gpus, made, continue_training, only_run_validation), num_gpus)


def _run_one_of(rank: int, count: int, made: Any, continue_training: bool, only_run_validation: bool) -> None:
    torch.distributed.init_process_group("gloo", rank=rank, world_size=count)
    _run(made, continue_training, only_run_validation)
    torch.distributed.destroy_process_group()


def _run(made: Any, continue_training: bool, only_run_validation: bool) -> None:
    dataset, configuration, fold, trainer_class_name, plans_identifier, device = made
    preprocessed = folder("preprocessed") / dataset
    plans = read_json(preprocessed / f"{plans_identifier}.json") | {"continue_training": continue_training}
    described = read_json(preprocessed / "dataset.json")
    trainer = find_trainer(trainer_class_name)(plans, configuration, fold, described, device)
    place = Path(trainer.output_folder)
    if continue_training or only_run_validation:
        names = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
        trainer.load_checkpoint(str(next(place / name for name in names if (place / name).is_file())))
    if not only_run_validation:
        trainer.run_training()
    trainer.perform_actual_validation(False)


def find_trainer(name: str) -> Any:
    """As nnU-Net: every module below `nnUNet_extTrainer` is imported and asked for the name."""
    for place in os.environ["nnUNet_extTrainer"].split(os.pathsep):  # noqa: SIM112
        for file in Path(place).rglob("*.py"):
            described = importlib.util.spec_from_file_location(file.stem, file)
            assert described is not None
            assert described.loader is not None
            module = importlib.util.module_from_spec(described)
            described.loader.exec_module(module)
            if hasattr(module, name):
                return getattr(module, name)
    raise RuntimeError(f"no trainer {name}")
