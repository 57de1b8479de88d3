"""Models that other docks run, and where those are. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

ELSEWHERE = ("dose", "registration", "slide", "prediction", "features")
"""Tasks that other docks are for."""


def elsewhere(bundle: Bundle) -> str:
    """Why a bundle for doses, registration or slides is not run here, and where it is."""
    if bundle.task == "slide":
        return f"{bundle.name} takes a slide's bag of features: score it in Plugins ▸ Mamba medical imaging ▸ Slides"
    if bundle.task == "prediction":
        return f"{bundle.name} predicts the next frames of a film: do so in Layers ▸ Segment ▸ Every frame of a film"
    if bundle.task == "features":
        return (
            f"{bundle.name} encodes a slide's patches: use the command napari-mamba run {bundle.name} SLIDE.tif -o "
            "features.h5"
        )
    if bundle.task == "registration":
        return f"{bundle.name} registers two images: do so in Plugins ▸ Mamba medical imaging ▸ Register"
    return (
        f"{bundle.name} takes a planning CT with its structures, not an image alone: predict a dose in Plugins ▸ Mamba "
        "medical imaging ▸ Radiotherapy"
    )
