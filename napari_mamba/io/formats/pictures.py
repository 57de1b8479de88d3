"""Pictures of two dimensions (PNG, JPEG, BMP) through Pillow, which checks their sums and refuses bombs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import without_orientation
from napari_mamba.volume import Volume

_ORIENTATION = 0x112  # EXIF's tag


def read(path: Path, colour: _colour.Colour = None) -> Volume:
    """Read a picture as one slice of `units` "pixel".

    Parameters
    ----------
    path : Path
    colour : {"grey", "channels"}, optional
        How a colour picture is taken.

    Raises
    ------
    InputError
        If it is damaged.
    ChoiceError
        If it is a colour picture and nothing is chosen.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
                doubts = _doubts(picture)
                picture.load()
                array = _pixels(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} has more pixels than a picture should: check where it came from") from error
    except UnidentifiedImageError as error:
        what = "is empty" if path.stat().st_size == 0 else "is no picture, whatever its name says"
        raise InputError(f"{path} {what}: check where it came from") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's own for damage
        raise InputError(f"{path} cannot be read, it is truncated or damaged ({error}): copy it anew") from error
    if array.ndim == 2:
        _colour.refuse(colour, path)
        volume = Volume(array[np.newaxis, np.newaxis], without_orientation(np.ones(3)), units="pixel")
    else:
        _colour.check(colour, path)
        data = np.ascontiguousarray(_colour.taken(np.moveaxis(array, -1, 0)[:, np.newaxis], colour))
        names = _colour.NAMES if colour == "channels" else ()
        volume = Volume(data, without_orientation(np.ones(3)), names, "pixel")
    return _source.attached(volume, _source.Source(doubts=doubts)) if doubts else volume


def numbers(path: Path) -> Volume | None:
    """The numbers of a picture with a table of colours, as programs draw labels; None where it has none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "BMP")) as picture:
                if picture.mode != "P":
                    return None
                array = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None  # `read` says what is wrong
    return Volume(array[np.newaxis, np.newaxis], without_orientation(np.ones(3)), units="pixel")


def _doubts(picture: Any) -> tuple[str, ...]:
    """What of a picture is left out."""
    found = []
    if (count := getattr(picture, "n_frames", 1)) > 1:
        found.append(f"The file holds {count} pictures, the first of which is taken.")
    if "16" in str(picture.tile[0][3] if picture.tile else "") and picture.mode in ("RGB", "RGBA", "LA", "L"):
        found.append("The picture's 16 bits a colour are read as 8: save each colour as a file of its own.")
    if (turned := picture.getexif().get(_ORIENTATION, 1)) not in (0, 1):
        found.append(
            f"The picture asks to be shown turned or mirrored (EXIF orientation {turned}): it is taken as it is stored."
        )
    return tuple(found)


def _pixels(picture: object) -> np.ndarray:
    """Values (rows, columns), or (rows, columns, 3 or 4) of a picture whose colours differ."""
    from PIL import Image

    assert isinstance(picture, Image.Image)
    if picture.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    elif picture.mode in ("1", "LA"):
        picture = picture.convert("L")
    array = np.asarray(picture)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
