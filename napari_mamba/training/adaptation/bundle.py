"""Which bundles can be adapted."""

from __future__ import annotations

from napari_mamba.bundles import Bundle
from napari_mamba.errors import BundleError

SUPPORTED = (
    "orient", "transpose", "crop_nonzero", "normalise", "field_of_view", "resample", "resize", "centre",
    "slice_axis_first", "crop_to_body",
)  # fmt: skip
"""Steps through which labels can follow an image; all that shipped segmentation bundles have."""


def check_bundle(bundle: Bundle) -> None:
    """Raise `BundleError` if the bundle cannot be adapted."""
    if bundle.task != "segmentation" or bundle.activation != "softmax":
        raise BundleError(f"{bundle.name} does not segment into exclusive classes: choose a bundle that does")
    if odd := [str(step.get("step")) for step in bundle.preparation if step.get("step") not in SUPPORTED]:
        raise BundleError(
            f"{bundle.name} prepares images by {odd[0]!r}, which labels cannot follow: adapt another bundle"
        )
