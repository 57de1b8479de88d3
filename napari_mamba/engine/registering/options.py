"""What a user can choose about a registration, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.registration.transforms import Transform, resample
from napari_mamba.volume import Volume

AFFINES = ("auto", "headers", "masses", "rigid", "none")
"""Where the affine starts: "auto" takes the better of the headers' places and the centres of mass."""


@dataclass(frozen=True)
class RegistrationOptions:
    """What a user can choose about a registration.

    Attributes
    ----------
    affine : str
        One of `AFFINES`: "rigid" neither scales nor shears, "none" believes the headers.
    refine : bool or None
        Fit a warp to this pair, after the network's; it is kept only where the images fit better. None: only where no
        network has warped.
    keep_warp : bool
        Keep the network's warp even where the images fit less well with it or much folds: to look at a network of
        one's own.
    device, precision : str
        Of the network, as in `RunOptions`.

    Raises
    ------
    InputError
        If `affine` is none of them.
    """

    affine: str = "auto"
    refine: bool | None = None
    device: str = "auto"
    precision: str = "auto"
    keep_warp: bool = False

    def __post_init__(self) -> None:
        if self.affine not in AFFINES:
            raise InputError(f"the affine is one of {', '.join(AFFINES)}, not {self.affine!r}")


@dataclass
class Registered:
    """Two images brought together.

    Attributes
    ----------
    moved : Volume or None
        The moving image on the fixed image's grid; None where the run was cancelled.
    transform : Transform
        From a place in the fixed world to the one in the moving world that is seen there.
    displacement, jacobian : Volume or None
        The whole way of each voxel in RAS mm (x, y, z), and by how much its volume changes; on the fixed grid.
    facts : dict
        What each step gained, how much folds, times. JSON can hold it.
    warnings : list of str
    """

    moved: Volume | None = None
    transform: Transform = field(default_factory=Transform)
    displacement: Volume | None = None
    jacobian: Volume | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def cancelled(self) -> bool:
        return self.moved is None

    def carry(self, labels: Volume, fixed: Volume) -> Volume:
        """Labels of the moving image on the fixed image's grid, by nearest neighbour."""
        return resample(labels, fixed, self.transform, nearest=True)
