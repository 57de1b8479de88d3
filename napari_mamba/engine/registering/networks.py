"""Which network warps a pair: the one that was named, or one that knows images like both of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_mamba.engine.familiarity.judge import judge_image
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

AUTO, NONE = "auto", "none"


def network_for(name: str, fixed: Volume, moving: Volume) -> Bundle | None:
    """The bundle to register a pair with.

    Parameters
    ----------
    name : str
        A bundle's name or path; "auto": the first bundle for registration to whose training images both of these are
        like; "none".
    fixed, moving : Volume

    Returns
    -------
    Bundle or None

    Raises
    ------
    BundleError
        If a bundle is named that cannot be found or read.
    """
    from napari_mamba import bundles

    if name == NONE:
        return None
    if name != AUTO:
        return bundles.load(name)
    for bundle in bundles.available():
        if bundle.task == "registration" and all(knows(bundle, volume) for volume in (fixed, moving)):
            return bundle
    return None


def knows(bundle: Bundle, volume: Volume) -> bool:
    """Whether an image is like those of a bundle's training, and the bundle can tell."""
    found = judge_image(volume, bundle)
    return bool(found) and all(one.familiar for one in found)
