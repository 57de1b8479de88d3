"""Channels: chosen of an image's own, or images on different grids brought onto the first one's, by the affines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import source
from napari_mamba.io.common.geometry import largest_displacement
from napari_mamba.io.lazy.picked import Picked
from napari_mamba.io.lazy.stacked import Stacked
from napari_mamba.volume import Volume

_SAME_PLACE_MM = 1e-3


def onto_grid(volume: Volume, reference: Volume, *, order: int = 1) -> Volume:
    """The values of `volume` at the voxel centres of `reference`.

    Parameters
    ----------
    volume : Volume
        (C, Z, Y, X).
    reference : Volume
        Only its grid counts.
    order : int
        Of the spline, 0 to 5; 1 is linear. Nothing is smoothed where the reference is coarser.

    Returns
    -------
    Volume
        On the reference's grid; float32, or the volume's own type with `order` 0. Outside of the volume's own grid: the
        lowest value of each channel.

    Raises
    ------
    InputError
        If either has no place in the world (no voxel size), or the two do not overlap.

    Examples
    --------
    >>> fine = Volume(np.arange(4.0).reshape(1, 1, 1, 4), affine=np.diag([1.0, 1, 1, 1]))
    >>> affine = np.diag([1.0, 1, 2, 1])
    >>> affine[2, 3] = 0.5
    >>> coarse = Volume(np.zeros((1, 1, 1, 2)), affine=affine)
    >>> onto_grid(fine, coarse).data.ravel().tolist()
    [0.5, 2.5]
    """
    from scipy import ndimage

    for one in (volume, reference):
        if one.units != "mm":
            raise InputError(f"{one.name or 'an image'} carries no voxel size, so it cannot be laid onto another grid")
    matrix = np.linalg.inv(volume.affine) @ reference.affine
    _check_overlap(volume, reference, matrix)
    data = np.asarray(volume.data)
    source = data if order == 0 else data.astype(np.float32)
    out = np.empty((volume.channels, *reference.shape), source.dtype)
    for channel, answer in zip(source, out, strict=True):
        ndimage.affine_transform(
            *(channel, matrix[:3, :3], matrix[:3, 3]), output=answer, order=order, cval=float(np.nanmin(channel)),
            output_shape=reference.shape, mode="constant",
        )  # fmt: skip
    return Volume(out, reference.affine, volume.channel_names, reference.units, volume.name)


def _check_overlap(volume: Volume, reference: Volume, matrix: np.ndarray) -> None:
    """Raise `InputError` where no voxel of the reference lies in the volume, seen at every n-th of them."""
    axes = [np.unique(np.linspace(0, n - 1, min(n, 24)).round()) for n in reference.shape]
    grid = np.stack([*np.meshgrid(*axes, indexing="ij")], -1).reshape(-1, 3)
    places = grid @ matrix[:3, :3].T + matrix[:3, 3]
    if not ((places > -0.5) & (places < np.array(volume.shape) - 0.5)).all(axis=1).any():
        raise InputError(
            f"{volume.name or 'a channel'} and {reference.name or 'the first channel'} do not overlap: check that they "
            "show the same person in one position, or register them first"
        )


def stacked(volumes: list[tuple[Path, Volume]], resample: bool = False) -> Volume:
    """Several images as the channels of one; `InputError` if they do not lie on the same grid."""
    path, first = volumes[0]
    if resample:
        volumes = [(other_path, _onto(other, first)) for other_path, other in volumes]
    names: list[str] = []
    for other_path, other in volumes:
        if other.shape != first.shape:
            raise InputError(
                f"{other_path} has {_by(other.shape)} voxels (z, y, x) and {path} {_by(first.shape)}: channels must "
                f"lie on one grid, resample one onto the other (--resample-channels)"
            )
        apart = largest_displacement(first.affine, other.affine, first.shape)
        if apart > _SAME_PLACE_MM:
            raise InputError(
                f"{other_path} lies up to {apart:.3g} mm away from {path}: channels must lie on one grid, resample one "
                f"onto the other (--resample-channels)"
            )
        if other.channels == 1:
            names.append(other.channel_names[0] if other.channel_names else other.name)
        else:
            names += other.channel_names or [f"{other.name} {i}" for i in range(other.channels)]
    parts = [volume.data for _, volume in volumes]
    lazily = any(not isinstance(part, np.ndarray) for part in parts)
    data = Stacked(parts) if lazily else np.concatenate(parts)
    return replace(first, data=data, channel_names=tuple(names))


def _onto(other: Volume, first: Volume) -> Volume:
    """`other`, interpolated onto the grid of `first` unless it lies on it."""
    same = other.shape == first.shape
    if same and largest_displacement(first.affine, other.affine, first.shape) <= _SAME_PLACE_MM:
        return other
    return onto_grid(other, first)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def chosen_channels(volume: Volume, which: str | int | Sequence[str | int]) -> Volume:
    """Some channels of a volume, in the order that is asked for; what is on disk stays there.

    Parameters
    ----------
    volume : Volume
    which : int, str, or sequence of these
        Numbers from 0, or names that the file gives its channels; a string may list several with commas.

    Raises
    ------
    InputError
        If the volume lacks one.

    Examples
    --------
    >>> volume = Volume(np.arange(2.0).reshape(2, 1, 1, 1), channel_names=("nuclei", "actin"))
    >>> chosen_channels(volume, "actin").data.ravel().tolist(), chosen_channels(volume, "1,0").channel_names
    ([1.0], ('actin', 'nuclei'))
    """
    wanted = [which] if isinstance(which, str | int) else list(which)
    numbers = [number for one in wanted for number in _numbers(volume, one)]
    if numbers == list(range(volume.channels)):
        return volume
    shown = source.shown_channels(volume)
    names = tuple(volume.channel_names[number] for number in numbers) if volume.channel_names else ()
    data = volume.data[numbers] if isinstance(volume.data, np.ndarray) else Picked(volume.data, numbers)
    header = replace(source.of(volume), shown=tuple(shown[number] for number in numbers) if shown else ())
    return source.attached(replace(volume, data=data, channel_names=names), header)


def _numbers(volume: Volume, which: str | int) -> list[int]:
    """The numbers of the channels that a number, a name, or a list of these with commas means."""
    known = {name.lower(): number for number, name in enumerate(volume.channel_names)}
    known |= {str(number): number for number in range(volume.channels)}  # a number is a number
    text = str(which).strip().lower()
    parts = [text] if text in known else [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in known:
            named = ", ".join(f"{n} {name}".strip() for n, name in enumerate(volume.channel_names[:12]))
            said = named or ("0, its only one" if volume.channels == 1 else f"0 to {volume.channels - 1}")
            raise InputError(f"{volume.name or 'the image'} has no channel {part[:40]!r}: choose of {said}")
    return [known[part] for part in parts]
