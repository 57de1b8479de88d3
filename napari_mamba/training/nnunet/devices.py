"""What nnU-Net trains on: its own names of devices, and how many GPUs there are."""

from __future__ import annotations

from napari_mamba.errors import InputError


def device_of(name: str) -> str:
    """ "auto" as what PyTorch has here; a GPU's number is for CUDA_VISIBLE_DEVICES, as nnU-Net has it."""
    import torch

    if name != "auto":
        if ":" in name:
            raise InputError(
                f"--device {name} names one GPU: say cuda, and choose it with CUDA_VISIBLE_DEVICES as nnU-Net does"
            )
        return name
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def check_gpus(device: str, gpus: int, batch_size: int | None = None) -> None:
    """Raise `InputError` if there are not so many GPUs, or fewer patches in a step than GPUs."""
    if gpus < 2:
        return
    import torch

    there = torch.cuda.device_count() if device_of(device) == "cuda" else 0
    if there < gpus:
        has = "no GPU of NVIDIA is" if not there else f"{there} GPU{' is' if there == 1 else 's are'}"
        raise InputError(
            f"--gpus {gpus} asks for {gpus} GPUs, and {has} here: take fewer (CUDA_VISIBLE_DEVICES hides some)"
        )
    if batch_size is not None and batch_size < gpus:
        raise InputError(f"{gpus} GPUs share the {batch_size} patches of a step: give --batch-size {gpus} or more")
