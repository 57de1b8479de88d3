"""Which layers belong together: on one grid, and channels of one image by their file or their names. No Qt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.layers import KEY, placement

if TYPE_CHECKING:
    from napari.layers import Layer


def base_name(name: str, channel: str) -> str:
    """A layer's name without its channel's first word, and without nnU-Net's ending.

    >>> base_name("anna T1", "T1"), base_name("p1_FLAIR_0001", "FLAIR weighted"), base_name("T1", "T1")
    ('anna', 'p1', 'T1')
    """
    word = re.escape(channel.split(" ", 1)[0])
    rest = re.sub(rf"(?<![A-Za-z0-9]){word}w?(?![A-Za-z0-9])|_\d{{4}}$", " ", name, flags=re.IGNORECASE)
    rest = re.sub(rf"(?<![A-Za-z0-9]){word}w?(?![A-Za-z0-9])", " ", rest, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", rest).strip(" _.-") or name


def carries(name: str, channel: str, number: int) -> bool:
    """Whether a layer's name has the channel's first word, or nnU-Net's ending of this number.

    >>> carries("anna T1", "T1", 0), carries("p1_0001", "FLAIR", 1), carries("left T11", "T1", 0)
    (True, True, False)
    """
    word = re.escape(channel.split(" ", 1)[0])
    named = re.search(rf"(?<![A-Za-z0-9]){word}w?(?![A-Za-z0-9])", name, flags=re.IGNORECASE)
    return bool(named) or name.endswith(f"_{number:04d}")


def channel_of(layer: Layer, channels: Sequence[str], layers: Sequence[Layer]) -> int | None:
    """Which channel a layer seems to be: of a file that gave several layers, else by its name; None if neither says."""
    if len(channels) < 2:
        return None
    path, number = _source(layer)
    if path and sum(_source(other)[0] == path for other in layers) > 1:
        return number
    return next((number for number, name in enumerate(channels) if carries(layer.name, name, number)), None)


def channel_beside(image: Layer, number: int, channels: Sequence[str], free: Sequence[Layer]) -> Layer | None:
    """The channel `number` of an image, among layers on its grid: of its file, of its name, or the only one."""
    path, _ = _source(image)
    if path and (same := [layer for layer in free if _source(layer) == (path, number)]):
        return same[0]
    named = [layer for layer in free if carries(layer.name, channels[number], number)]
    base = base_name(image.name, channels[0]).lower()
    alike = [layer for layer in named if base_name(layer.name, channels[number]).lower() == base]
    found = alike or named
    return found[0] if len(found) == 1 else None


def same_place(image: Layer, other: Layer) -> bool:
    """Whether two layers have the same voxels."""
    shapes = [tuple((layer.data[0] if layer.multiscale else layer.data).shape) for layer in (image, other)]
    if shapes[0] != shapes[1]:
        return False
    try:
        first, second = placement(image), placement(other)
    except NapariMambaError:
        return False
    return np.allclose(first.affine, second.affine, rtol=0, atol=1e-2)


def _source(layer: Layer) -> tuple[str, Any]:
    told = layer.metadata.get(KEY, {})
    return str(told.get("path") or ""), told.get("channel")
