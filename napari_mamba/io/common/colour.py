"""Colour images: whether they are taken as grey or as three channels is asked, not guessed."""

from __future__ import annotations

from typing import Literal

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, Option

Colour = Literal["grey", "channels"] | None
NAMES = ("red", "green", "blue")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_OPTIONS = (Option("grey", "as grey (luminance)"), Option("channels", "red, green and blue as channels"))


def check(colour: Colour, path: object) -> None:
    """Raise `ChoiceError` if nothing is chosen for a colour image, `InputError` if it is no choice."""
    if colour is None:
        raise ChoiceError(
            f"{path} is a colour image: choose whether to take it as grey or as three channels, or save each colour as "
            "a file of its own",
            "colour",
            _OPTIONS,
        )
    if colour not in ("grey", "channels"):
        raise InputError(f"a colour image is taken as grey or as channels, not as {colour!r}")


def refuse(colour: Colour, path: object) -> None:
    """Raise `InputError` if something is chosen where there are no colours."""
    if colour is not None:
        raise InputError(f"{path} is no colour image: leave the choice of colours out")


def taken(array: np.ndarray, colour: Colour) -> np.ndarray:
    """Values (3 or 4, Z, Y, X) as one channel of grey in float32, or as three; a fourth, the opacity, is left out."""
    if colour == "channels":
        return array[:3]
    grey = sum(np.float32(weight) * array[i].astype(np.float32) for i, weight in enumerate(_LUMA))
    return np.asarray(grey, dtype=np.float32)[np.newaxis]
