"""What can be said of a machine's devices: names and free memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceFacts:
    """One device that a run can be given.

    Parameters
    ----------
    name : str
        As `RunOptions.device` takes it: "cpu", "cuda:0", "mps".
    hardware : str
        The maker's name of it.
    free, total : int or None
        Bytes of its memory, None where the system does not say.
    """

    name: str
    hardware: str = ""
    free: int | None = None
    total: int | None = None

    @property
    def title(self) -> str:
        """For a list of devices.

        Examples
        --------
        >>> DeviceFacts("cuda:1", "NVIDIA H200", 2**36, 2**37).title
        'GPU 1: NVIDIA H200 (64 of 128 GB free)'
        """
        kind = {"cpu": "CPU", "mps": "Apple GPU"}.get(self.name, f"GPU {self.name.partition(':')[2] or '0'}")
        hardware = f": {self.hardware}" if self.hardware and self.name.startswith("cuda") else ""
        memory = ""
        if self.free is not None:
            of = f" of {gigabytes(self.total)}" if self.total else ""
            memory = f" ({gigabytes(self.free)}{of} GB free)"
        return f"{kind}{hardware}{memory}"


def gigabytes(count: int) -> str:
    """Bytes in 2**30, with a digit that says something.

    Examples
    --------
    >>> gigabytes(2**36), gigabytes(3 * 2**29)
    ('64', '1.5')
    """
    return f"{count / 2**30:.3g}" if count < 100 * 2**30 else f"{count / 2**30:.0f}"


def devices() -> list[DeviceFacts]:
    """The devices here; those of `napari_mamba.engine.available_devices` but "auto". Imports torch."""
    from napari_mamba.engine import available_devices, choose_device
    from napari_mamba.engine.memory import available_bytes

    found = []
    for name in available_devices():
        if name == "auto":
            continue
        free: int | None = None
        total: int | None = None
        if name.startswith("cuda"):
            import torch

            free, total = torch.cuda.mem_get_info(torch.device(name))
        elif name == "cpu":
            free = available_bytes()
        found.append(DeviceFacts(name, choose_device(name).name, free, total))
    return found


def automatic(found: list[DeviceFacts]) -> str:
    """What "auto" stands for here, as `engine.choose_device` has it; empty while nothing is known.

    Examples
    --------
    >>> automatic([DeviceFacts("cpu"), DeviceFacts("cuda:0")])
    'cuda:0'
    """
    cuda = [device.name for device in found if device.name.startswith("cuda")]
    return (cuda or [device.name for device in found][-1:] or [""])[0]
