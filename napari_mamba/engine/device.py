"""Where a run happens and in which precision."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from napari_mamba.errors import InputError

if TYPE_CHECKING:  # torch costs a second to import and a GUI asks for the devices at its start
    import torch


@dataclass(frozen=True)
class Device:
    """A device and the precision that networks run in on it.

    Parameters
    ----------
    torch_device : torch.device
    dtype : torch.dtype
        float32, or the half precision that matrix products and convolutions are computed in (autocast).
    name : str
        The hardware's name, for the provenance.
    chosen : bool
        The half precision was chosen by "auto": the run may fall back to float32.
    """

    torch_device: torch.device
    dtype: torch.dtype
    name: str
    chosen: bool = False

    @property
    def precision(self) -> str:
        """ "float32", "bfloat16" or "float16"."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager:
        """Context in which a network runs; thread-local, so never held across a `yield`."""
        import torch

        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=self.dtype)


def available_devices() -> list[str]:
    """Names of the devices that can be chosen here, "auto" first; imports torch when called."""
    import torch

    names = ["auto", "cpu"]
    names += [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    names += ["mps"] if torch.backends.mps.is_available() else []
    return names


def choose_device(device: str = "auto", precision: str = "auto") -> Device:
    """The device and precision that a run will use.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda", "cuda:i" or "mps". "auto" takes the first of CUDA, MPS, CPU that is there.
    precision : str
        "auto", "float32", "bfloat16" or "float16". "auto" is float32 on CPU and MPS, and float16 with float32
        accumulation on CUDA, as nnU-Net does (bfloat16 keeps 8 bits, too few for a restored image).

    Raises
    ------
    InputError
        If this machine has no such device or the device cannot compute in that precision.

    Examples
    --------
    >>> choose_device("cpu").precision
    'float32'
    """
    import torch

    torch_device = _torch_device(device)
    wanted = precision
    if precision == "auto":
        wanted = "float16" if torch_device.type == "cuda" else "float32"
    if wanted == "float16" and torch_device.type == "cpu":
        raise InputError("the CPU does not compute in float16: choose the precision float32 or bfloat16")
    if wanted == "bfloat16" and torch_device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(f"{_hardware(torch_device)} does not compute in bfloat16: choose float16 or float32")
    return Device(torch_device, getattr(torch, wanted), _hardware(torch_device), chosen=precision == "auto")


def unused_gpu(device: Device) -> str:
    """A sentence where a run is on the CPU, and this machine has an NVIDIA GPU that PyTorch cannot use; else empty."""
    import torch

    if device.torch_device.type != "cpu" or torch.cuda.is_available() or not _gpus_of_the_driver():
        return ""
    missing = "a newer driver" if torch.version.cuda else "PyTorch's build for CUDA (pytorch.org/get-started)"
    return f"This machine has an NVIDIA GPU that is not used, so that the run is many times slower: install {missing}."


@cache
def _gpus_of_the_driver() -> int:
    """How many GPUs NVIDIA's driver shows to this process."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0
    except (OSError, AttributeError):
        return 0


def _torch_device(name: str) -> torch.device:
    import torch

    usable = available_devices()
    if name == "auto":
        cuda = [d for d in usable if d.startswith("cuda")]
        return torch.device(cuda[0] if cuda else usable[-1])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in usable:
        raise InputError(f"there is no device {name!r} on this machine: choose one of {', '.join(usable)}")
    return torch.device(wanted)


def _hardware(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple {platform.machine()} GPU"
    return _cpu_name()


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
