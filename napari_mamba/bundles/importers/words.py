"""What weights do not say, as people write it: names with commas, sizes, JSON. For the command and for the window."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.io.paths import expanded


def parse_arguments(pairs: Sequence[str] | None, what: str = "--argument") -> dict[str, Any] | None:
    """Arguments of a network; values are JSON, or text where they are not.

    Parameters
    ----------
    pairs : sequence of str, optional
        Such as "residual=false" and "upsampler=pixelshuffle".
    what : str
        Where they were written, for messages.

    Examples
    --------
    >>> parse_arguments(["residual=false", "upsampler=pixelshuffle"])
    {'residual': False, 'upsampler': 'pixelshuffle'}
    """
    if not pairs:
        return None
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{what} takes NAME=VALUE, not {pair!r}")
        try:
            parsed[name.strip()] = json.loads(value)
        except ValueError:
            parsed[name.strip()] = value
    return parsed


def parse_names(text: str | None) -> list[str] | None:
    """Names with commas between them, as a list.

    >>> parse_names("liver, spleen")
    ['liver', 'spleen']
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"names are separated by one comma each, not as in {text!r}")
    return names


def parse_tile(text: str | None) -> list[int] | None:
    """Two or three numbers of voxels, as a list.

    >>> parse_tile("256,256")
    [256, 256]
    """
    if text is None:
        return None
    sides = text.split(",")
    if len(sides) not in (2, 3) or not all(side.strip().isdigit() and int(side) > 0 for side in sides):
        raise InputError(f"a tile here is two or three positive numbers of voxels such as 128,128,128, not {text!r}")
    return [int(side) for side in sides]


def parse_objects(kind: str, text: str | None, what: str = "") -> list[Any] | None:
    """A list of objects as JSON, or the file that holds it.

    Parameters
    ----------
    kind : {"preparation", "columns"}
        A preparation's steps, or a table's columns.
    text : str, optional
    what : str
        Where it was written, for messages; the command's option if not given.

    Examples
    --------
    >>> parse_objects("preparation", '[{"step": "crop_nonzero"}]')
    [{'step': 'crop_nonzero'}]
    """
    if text is None:
        return None
    what = what or f"--{kind}"
    key, parts = {"preparation": ("step", "steps"), "columns": ("name", "columns")}[kind]
    try:
        found = json.loads(text if text.lstrip().startswith("[") else expanded(text).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{what} takes a JSON list of {parts} or its file, and {text!r} is neither ({error})"
        ) from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{what} takes a list of objects, each with its name under '{key}'")
    return found
