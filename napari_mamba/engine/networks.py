"""A bundle's networks on a device, ready to be run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_mamba.engine.device import Device
from napari_mamba.engine.idle_networks import IDLE, key_of
from napari_mamba.engine.plan import Plan
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.engine.tiling.several import OfClip, OfPair
from napari_mamba.models import list_models
from napari_mamba.scan import selective_scan

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def load_ensemble(bundle: Bundle, device: Device, plan: Plan, entropy: str = "") -> Ensemble:
    """The networks of a bundle, as a plan runs them; `entropy` as in `Ensemble`.

    Those that an earlier run has given back are taken instead of new ones: see `give_back`.
    """
    swap, frames = left_right_channel_swap(bundle), bundle.tile.frames
    if frames:
        swap = [frame * len(swap) + channel for frame in range(frames) for channel in swap]
    return Ensemble(
        IDLE.take(key_of(bundle, device.torch_device)) or _built(bundle),
        device,
        plan.mirror_axes,
        plan.spatial_dims,
        entropy,
        channel_swap=swap,
        round_robin=bundle.tile.round_robin,
    )


def _built(bundle: Bundle) -> list[torch.nn.Module]:
    networks = bundle.networks()
    if bundle.task == "fusion":
        networks = [OfPair(network) for network in networks]
    return [OfClip(network, bundle.tile.frames) for network in networks] if bundle.tile.frames else networks


def give_back(bundle: Bundle, ensemble: Ensemble) -> None:
    """Keep an ensemble's networks for the next run of this bundle; the caller must not use them again."""
    IDLE.put(key_of(bundle, ensemble.device.torch_device), ensemble.networks)


def scans(bundle: Bundle) -> bool:
    """Whether a bundle's network has selective scans, whose kernels are to be compiled."""
    return any(model.name == bundle.network.name and model.scan_order for model in list_models())


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
