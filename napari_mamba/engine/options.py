"""What a user can choose about a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.io.regions import checked_box

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
AXES = ("z", "y", "x")
SLICE_PROFILES = ("gaussian", "box", "sinc", "unknown")
MOST_AHEAD = 10_000
_NAMES: Mapping[str, str] = {
    "tile": "tile",
    "overlap": "overlap of tiles",
    "mirror": "mirrored copies",
    "batch_size": "batch size",
    "axis": "axis of the slices",
    "spacing": "voxel size",
    "slice_profile": "slices' profile",
    "strength": "strength",
    "clip": "limit to the input's range",
    "replace_nonfinite": "value for NaN",
    "region": "region",
    "seed": "seed",
    "ahead": "number of frames to predict",
}
"""What a user reads, of the options that not every bundle can follow."""
_WHOLE = ("overlap", "mirror", "batch_size")
_SLIDE = ("tile", *_WHOLE, "axis", "spacing", "slice_profile", "replace_nonfinite", "region")
_UNFOLLOWED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "registration": (("tile", *_WHOLE, "axis", "spacing", "slice_profile"), "sees both images whole, as they are"),
    "slide": (_SLIDE, "takes a slide's bag of features whole"),
    "features": (tuple(name for name in _SLIDE if name != "batch_size"), "cuts a slide into its own patches"),
    "prediction": (("tile", *_WHOLE, "axis", "spacing", "slice_profile"), "sees each frame of a film whole"),
    "diffusion": (("overlap", "mirror"), "samples whole slices"),
}
"""Of tasks, what their bundles cannot be asked for, and why."""
_OF_TASKS: Mapping[str, str] = {
    "strength": "restoration",
    "clip": "restoration",
    "seed": "diffusion",
    "ahead": "prediction",
}
"""Options that are for one task alone."""
MAX_STRENGTH = 1.5
"""Half as much again as the network would change: what it left of structured noise goes, and fine detail with it."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run; None means "as the bundle says".

    Parameters
    ----------
    device : str
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
    precision : str
        "auto", "float32", "bfloat16" or "float16".
    tile : int or tuple of int, optional
        Voxels of a tile along (z, y, x), (y, x) for a 2D network, after the bundle's resampling. One number counts
        for every axis.
    overlap : float, optional
        Share of a tile that its neighbour covers too, 0 to 0.9.
    mirror : bool, optional
        Average over mirrored copies, along the axes that the bundle allows. Eight times the work in 3D. None: yes,
        but of a restoration only where its uncertainty is asked for.
    batch_size : int, optional
        Tiles that go through the network together.
    axis : str, optional
        2D networks: cut the volume into slices along this axis of the image as given, "z", "y" or "x"; the rows and
        columns of a slice are the other axes in their order. "all" runs all three and averages them before the
        activation (2.5D), which holds every class of the whole image. None: the bundle's own, the first axis of the
        prepared image.
    uncertainty : bool
        Also return the entropy of the classes' probabilities, per voxel, in ``Result.extra["uncertainty"]``.
        Restoration: the standard deviation over mirrored copies, in the image's units, where the bundle allows those.
        Classification: where the network looked instead, in ``Result.extra["activation_map"]``: what each voxel adds
        to the likeliest class's logit, above 0 where it speaks for it.
    probabilities : bool
        Also return the classes' probabilities, in ``Result.extra["probabilities"]``: one float32 channel a class.
    residual : bool
        Restoration: also return input minus output, in ``Result.extra["residual"]``.
    spacing : float or tuple of float, optional
        Of bundles that answer on a finer grid (super-resolution): its voxel sides in mm along (z, y, x). One number
        counts for every axis. None: the bundle's own, else the shortest side of the image.
    slice_profile : str, optional
        Super-resolution: the profile of the image's slices, where it is known: "sinc" (a 3D acquisition), "box" or
        "gaussian". The answer is then changed as little as makes its slices those of the image. None: a sinc where the
        file's header says that the acquisition is 3D, else unknown. "unknown": whatever the header says.
    strength : float
        Restoration: how much of the network's change is made, 0 (the input, interpolated where the answer is on a
        finer grid) to 1.5; 1 is the network's answer. The uncertainty is that of the change.
    clip : bool
        Restoration: keep the output within the range of the input.
    replace_nonfinite : float, optional
        Value put in the place of NaN and infinite voxels, which are refused otherwise.
    region : tuple of float, optional
        Answer only inside this box in RAS mm: lowest x, y, z, then highest x, y, z. The output keeps the image's grid;
        see `napari_mamba.engine.region`.
    deterministic : bool
        The same bytes in every run on a GPU, which is slower. On the CPU they are the same anyway, on any number of
        threads; the provenance says which holds.
    seed : int
        Diffusion: of the noise that a sample begins with, and of that its steps add.
    ahead : int, optional
        Prediction: how many frames after the last one; None: as many as the film has.
    row : mapping of str to str, optional
        Of bundles that take a row of a table beside the image: its cells by their headings, as
        `napari_mamba.io.row_of` reads them. It is kept in the run's provenance.

    Raises
    ------
    InputError
        If a value is outside what is said above.

    Examples
    --------
    >>> RunOptions(tile=[64, 96, 96]).tile
    (64, 96, 96)
    """

    device: str = "auto"
    precision: str = "auto"
    tile: int | tuple[int, ...] | None = None
    overlap: float | None = None
    mirror: bool | None = None
    batch_size: int | None = None
    axis: str | None = None
    uncertainty: bool = False
    probabilities: bool = False
    residual: bool = False
    spacing: float | tuple[float, ...] | None = None
    slice_profile: str | None = None
    strength: float = 1.0
    clip: bool = True
    replace_nonfinite: float | None = None
    region: tuple[float, ...] | None = None
    deterministic: bool = False
    seed: int = 0
    ahead: int | None = None
    row: Mapping[str, str] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if self.row is not None:
            object.__setattr__(self, "row", {str(heading): str(cell) for heading, cell in self.row.items()})
        if self.precision not in PRECISIONS:
            raise InputError(f"there is no precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if self.tile is not None:
            tile = (self.tile,) if isinstance(self.tile, int) else tuple(int(n) for n in self.tile)
            if not 1 <= len(tile) <= 3 or min(tile) < 1:
                raise InputError(f"a tile is 1, 2 or 3 numbers of voxels, all at least 1, not {self.tile}")
            object.__setattr__(self, "tile", tile[0] if len(tile) == 1 else tile)
        if self.overlap is not None and not 0 <= self.overlap <= 0.9:
            raise InputError(f"the overlap of tiles is a share from 0 to 0.9, not {self.overlap}")
        if self.spacing is not None:
            sides = (self.spacing,) if isinstance(self.spacing, int | float) else tuple(map(float, self.spacing))
            if len(sides) not in (1, 3) or not all(0 < side < float("inf") for side in sides):
                raise InputError(f"a voxel size is one positive number of mm, or three (z, y, x), not {self.spacing}")
            object.__setattr__(self, "spacing", float(sides[0]) if len(sides) == 1 else sides)
        if self.slice_profile not in (None, *SLICE_PROFILES):
            raise InputError(f"the profile of slices is one of {', '.join(SLICE_PROFILES)}, not {self.slice_profile!r}")
        if not 0 <= self.strength <= MAX_STRENGTH:
            share, most = f"{100 * self.strength:g}%", f"{100 * MAX_STRENGTH:g}%"
            raise InputError(f"a restoration's strength is from 0 (the input) to {most}, not {share}")
        if self.axis not in (None, *AXES, "all"):
            raise InputError(f"slices are cut along z, y, x or all, not {self.axis!r}")
        if self.region is not None:
            object.__setattr__(self, "region", checked_box(self.region))
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"the batch size is at least 1, not {self.batch_size}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"a seed is a whole number from 0 on, below 2 to the power of 31, not {self.seed}")
        if self.ahead is not None and not 1 <= self.ahead <= MOST_AHEAD:
            raise InputError(f"from 1 to {MOST_AHEAD} frames can be predicted, not {self.ahead}")

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON can hold them."""
        options = asdict(self)
        for key in ("tile", "spacing", "region"):
            if isinstance(options[key], tuple):
                options[key] = list(options[key])
        return options


def check_followed(bundle: Any, options: RunOptions) -> list[str]:
    """Look whether a bundle can follow what was chosen; returns sentences about what makes no difference.

    Raises
    ------
    InputError
        If an option that is not as by default means nothing to the bundle's task.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> check_followed(SimpleNamespace(name="a", task="segmentation"), RunOptions(seed=1))
    Traceback (most recent call last):
    napari_mamba.errors.InputError: a is for segmentation, and a seed is for diffusion: leave the seed away
    """
    plain = RunOptions()
    unlike = [name for name in _NAMES if getattr(options, name) != getattr(plain, name)]
    chosen = [name for name in unlike if name != "mirror" or options.mirror]  # without copies any bundle does
    unfollowed, why = _UNFOLLOWED.get(bundle.task, ((), ""))
    for name in chosen:
        said = _NAMES[name]
        if name in unfollowed:
            raise InputError(f"{bundle.name} {why}: leave the {said} away")
        if (task := _OF_TASKS.get(name, bundle.task)) != bundle.task:
            article = "an" if said[0] in "aeiou" else "a"
            raise InputError(
                f"{bundle.name} is for {bundle.task}, and {article} {said} is for {task}: leave the {said} away"
            )
    if "mirror" in chosen and not bundle.tile.mirror_axes:
        return [f"{bundle.name} allows no mirrored copies: none were averaged."]
    return []
