"""From the text of options to what the engine and the readers take."""

from __future__ import annotations

from typing import Any

from napari_mamba.errors import InputError


def parse_tile(text: str | None) -> int | tuple[int, ...] | None:
    """The tile as `RunOptions` takes it.

    >>> parse_tile("64"), parse_tile("32,64,64"), parse_tile("32x64x64"), parse_tile(None)
    (64, (32, 64, 64), (32, 64, 64), None)
    """
    if text is None:
        return None
    try:
        sizes = tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"--tile {text} is no size: give voxels as 64 or as 32,64,64 (z, y, x)") from None
    return sizes[0] if len(sizes) == 1 else sizes


def parse_spacing(text: str | None) -> float | tuple[float, ...] | None:
    """The voxel size as `RunOptions` takes it.

    >>> parse_spacing("0.8"), parse_spacing("1,0.5,0.5"), parse_spacing(None)
    (0.8, (1.0, 0.5, 0.5), None)
    """
    if text is None:
        return None
    try:
        sides = tuple(float(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"--spacing {text} is no voxel size: give mm as 0.8 or as 1,0.8,0.8 (z, y, x)") from None
    return sides[0] if len(sides) == 1 else sides


def parse_strength(text: str | None) -> float | None:
    """The strength as `RunOptions` takes it.

    >>> parse_strength("50"), parse_strength("150%"), parse_strength(None)
    (0.5, 1.5, None)
    """
    if text is None:
        return None
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise InputError(f"--strength {text} is no percentage: give a number from 0 to 150") from None


def parse_region(text: str | None) -> tuple[float, ...] | None:
    """The box as `RunOptions` takes it.

    >>> parse_region("-40,-20,0,-10,10.5,30"), parse_region(None)
    ((-40.0, -20.0, 0.0, -10.0, 10.5, 30.0), None)
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--region {text} is no box: give lowest, then highest x, y, z (RAS mm), as --region=-9,0,0,9,20,30"
        ) from None


def run_options(**chosen: Any) -> dict[str, Any]:
    """Only what the user chose, so that the defaults stay `RunOptions`' own."""
    return {name: value for name, value in chosen.items() if value is not None}


def read_options(
    series: str | None,
    frame: str | None,
    level: int,
    resample_channels: bool = False,
    colour: str | None = None,
    channel: str | None = None,
) -> dict[str, Any]:
    """What `io.read` takes, from the text of the options.

    >>> read_options("3", "all", 0)
    {'series': 3, 'frame': 'all', 'level': 0, 'resample_channels': False}
    """
    if frame not in (None, "all", "each") and not str(frame).isdigit():
        raise InputError(f"--frame {frame} is no volume of a 4D file: give its number from 0, all, or each")
    if colour not in (None, "grey", "channels"):
        raise InputError(f"--colour {colour} is not known: take a colour image as grey, or as channels")
    chosen = {name: value for name, value in (("colour", colour), ("channel", channel)) if value}
    return {
        **chosen,
        "series": int(series) if series is not None and series.isdigit() else series,
        "frame": int(frame) if frame is not None and frame.isdigit() else frame,
        "level": level,
        "resample_channels": resample_channels,
    }
