"""What a bundle of each kind has to say: a pair of images, a slide's features, frames of a film."""

from __future__ import annotations

import math
from typing import Any

from napari_mamba.errors import BundleError

MOST_FEATURES, MOST_FRAMES = 65536, 256


def check_pair(spec: Any) -> None:
    """Two images at once, the moving and the fixed one, never mirrored."""
    if len(spec.channels) != 2:
        raise BundleError(f"bundle {spec.name}: a registration has two channels, the moving and the fixed image")
    if spec.tile.mirror_axes or not spec.tile.divisor:
        raise BundleError(
            f"bundle {spec.name}: a registration sees two images at once: its tile has a divisor and no mirror_axes"
        )


def check_features(spec: Any) -> None:
    """One channel of features as they are: the tile is how many a patch has."""
    size = spec.tile.size
    if len(size) != 1 or not 0 < size[0] <= MOST_FEATURES:
        raise BundleError(f"bundle {spec.name}: the tile of a slide is one number, the features of a patch")
    if spec.tile.mirror_axes or spec.preparation or len(spec.channels) != 1:
        raise BundleError(
            f"bundle {spec.name}: a slide is one channel of features as they are, not prepared and not mirrored"
        )
    for name in ("in_dim", "input_dim"):
        if spec.network.arguments.get(name, size[0]) != size[0]:
            raise BundleError(f"bundle {spec.name}: its network does not take {size[0]} features a patch")


def check_fusion(spec: Any) -> None:
    """Two images of as many channels each."""
    if len(spec.channels) % 2:
        raise BundleError(
            f"bundle {spec.name}: a fusion has two images, so an even number of channels, not {len(spec.channels)}"
        )


def check_diffusion(spec: Any) -> None:
    """Whole slices, pictures or frames, never mirrored: of a sampler, of what predicts frames, of an encoder."""
    if len(spec.tile.size) != 2 or spec.tile.mirror_axes:
        raise BundleError(f"bundle {spec.name}: its tile is a picture (y, x), and has no mirror_axes")


def images_of(spec: Any) -> int:
    """Input channels that a bundle's network has: half for each image of a fusion, and of a diffusion the noisy one."""
    if spec.task == "fusion":
        return len(spec.channels) // 2
    if spec.task == "diffusion":
        return len(spec.channels) + 1 - int(spec.network.arguments.get("inp_struc_channels", 0))
    return len(spec.channels)


def check_frames(spec: Any, most_voxels: int) -> None:
    """A window of frames for a network that sees several at once."""
    frames = spec.tile.frames
    if not frames:
        return
    if spec.task != "segmentation" or not 2 <= frames <= MOST_FRAMES:
        raise BundleError(
            f"bundle {spec.name}: a window of frames is for a segmentation, and of 2 to {MOST_FRAMES} frames"
        )
    if math.prod(spec.tile.size) * frames > most_voxels:
        raise BundleError(f"bundle {spec.name}: {frames} frames of its tile are larger than any network takes")
