"""A bundle's networks on a device, ready to be run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import torch

from napari_mamba import models
from napari_mamba.engine.device import Device
from napari_mamba.engine.networks.idle import IDLE, key_of
from napari_mamba.engine.plan import Plan
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.engine.tiling.passes import share_memory
from napari_mamba.engine.tiling.several import DisplacementOfPair, OfClip, OfPair
from napari_mamba.scan import selective_scan

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


class Loading:
    """A bundle's networks on their way to a device, in a thread of their own: the image is prepared meanwhile.

    Parameters
    ----------
    bundle : Bundle
    device : Device
    """

    def __init__(self, bundle: Bundle, device: Device) -> None:
        self.bundle, self.device = bundle, device
        self._networks: list[torch.nn.Module] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._load, name="loading networks", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            self._networks = [network.to(self.device.torch_device) for network in _networks(self.bundle, self.device)]
        except BaseException as error:  # raised where the networks are asked for
            self._error = error

    def networks(self) -> list[torch.nn.Module]:
        """Wait for them; they are the caller's from now on. Raises what loading raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._networks is not None
        taken, self._networks = self._networks, []
        return taken

    def leave(self) -> None:
        """Nobody asked for them: they are kept for the next run. Does nothing where they were taken."""
        self._thread.join()
        if self._networks:
            IDLE.put(key_of(self.bundle, self.device.torch_device), self._networks)
            self._networks = []


def loads_beside(device: torch.device) -> bool:
    """Whether networks are loaded while the image is prepared: on the CPU both would share its cores."""
    return device.type == "cuda"


def load_ensemble(
    bundle: Bundle, device: Device, plan: Plan, entropy: str = "", loading: Loading | None = None
) -> Ensemble:
    """The networks of a bundle, as a plan runs them; `entropy` as in `Ensemble`.

    Those that an earlier run has given back are taken instead of new ones (see `give_back`), or those of `loading`.
    """
    swap, frames = left_right_channel_swap(bundle), bundle.tile.frames
    if frames:
        swap = [frame * len(swap) + channel for frame in range(frames) for channel in swap]
    networks = _networks(bundle, device) if loading is None else loading.networks()
    if device.torch_device.type == "cuda":
        share_memory(networks)
    return Ensemble(
        networks,
        device,
        plan.mirror_axes,
        plan.spatial_dims,
        entropy,
        channel_swap=swap,
        round_robin=bundle.tile.round_robin,
    )


def _networks(bundle: Bundle, device: Device) -> list[torch.nn.Module]:
    return IDLE.take(key_of(bundle, device.torch_device)) or _built(bundle, device.torch_device)


def _built(bundle: Bundle, device: torch.device) -> list[torch.nn.Module]:
    # A GPU widens and checks the weights itself: on the processor that took longer than all the rest of loading.
    networks = bundle.networks(device) if device.type == "cuda" else bundle.networks()
    if bundle.task == "fusion":
        networks = [OfPair(network) for network in networks]
    if bundle.task == "registration":
        from napari_mamba.models.registration.parts import DisplacementNetwork

        networks = [DisplacementOfPair(one) if isinstance(one, DisplacementNetwork) else one for one in networks]
    return [OfClip(network, bundle.tile.frames) for network in networks] if bundle.tile.frames else networks


def give_back(bundle: Bundle, ensemble: Ensemble) -> None:
    """Keep an ensemble's networks for the next run of this bundle; the caller must not use them again."""
    IDLE.put(key_of(bundle, ensemble.device.torch_device), ensemble.networks)


def scans(bundle: Bundle) -> bool:
    """Whether a bundle's network has selective scans, whose kernels are to be compiled."""
    kinds = bundle.networks_of(1)
    within = [kind.arguments.get("network") for kind in kinds]  # as a dose's has one
    return any(models.scans(name) for name in (*(kind.name for kind in kinds), *within) if name)


@torch.inference_mode()
def compile_scan(device: torch.device) -> None:
    """Have the scan's kernels compiled, or read from their cache, by a scan of two steps.

    The first tile would wait for it otherwise, and the time left be told wrong.
    """
    u = torch.ones(1, 2, 16, device=device)
    selective_scan(u, u, -torch.ones(16, 1, device=device), u[..., :1], u[..., :1])


def left_right_channel_swap(bundle: Bundle) -> list[int]:
    """The channel that takes each channel's place where left and right are mirrored; empty if none does."""
    sides = list(bundle.tile.left_right_pairs)
    other = dict(zip(sides, [sides[i ^ 1] for i in range(len(sides))], strict=True))
    labels = [c.index for c in bundle.classes]
    return [labels.index(other.get(label, label)) for label in labels] if sides else []
