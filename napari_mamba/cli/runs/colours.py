"""Colour images in runs: taken as three channels where the network is made for them, refused where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from napari_mamba.errors import ChoiceError, InputError

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

T = TypeVar("T")


def in_colour(read: Callable[[Any], T], colour: str | None, bundle: Bundle) -> T:
    """``read(colour)``; where that asks how colours are to be taken, the bundle's channels answer.

    Raises
    ------
    InputError
        If the image has colours and the bundle takes grey ones.
    """
    try:
        return read(colour)
    except ChoiceError as error:
        if error.argument != "colour":
            raise
        return read(colour_for(bundle))


def colour_for(bundle: Bundle) -> str:
    """How a colour image is taken for a bundle; raises `InputError` where its network takes grey images."""
    from napari_mamba.engine.checks import takes_rgb

    if not takes_rgb(bundle):
        raise InputError(
            f"this is a colour image, and {bundle.name} takes grey ones: take its luminance with --colour grey, or "
            "choose a bundle for colour images"
        )
    return "channels"
