"""Which normalisation MONAI's convolutional blocks have, read off a state_dict."""

from __future__ import annotations

from typing import NamedTuple

from napari_mamba.models.registry import Shapes
from napari_mamba.nn.blocks.unets.unetr import NormName


class FoundNorm(NamedTuple):
    """What the keys of a norm tell.

    Attributes
    ----------
    name : NormName
        As MONAI has it; the likeliest where they leave it open.
    unsaid : tuple of str
        The arguments that have to be said: `norm_name`, or none.
    note : str
        Why.
    """

    name: NormName
    unsaid: tuple[str, ...] = ()
    note: str = ""


def norm_of(shapes: Shapes, norm: str = "encoder1.layer.norm1.") -> FoundNorm:
    """The norm under a prefix: with running means "batch", without weights "instance", else to be said."""
    if f"{norm}running_mean" in shapes:
        return FoundNorm("batch" if f"{norm}weight" in shapes else ("batch", {"affine": False}))
    if f"{norm}weight" not in shapes:
        return FoundNorm("instance")
    said = (
        "The weights do not say what is normalised together: name the norm_name, "
        '["instance", {"affine": true}] or ["group", {"num_groups": 8}].'
    )
    return FoundNorm(("instance", {"affine": True}), ("norm_name",), said)
