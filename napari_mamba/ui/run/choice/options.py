"""How a run computes: a plain model of every option of the command, each None or empty for "as the bundle says".

No Qt in here. One list says which option suits which bundle; the widget shows those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import SignalGroupDescriptor

from napari_mamba.engine import RunOptions
from napari_mamba.errors import InputError
from napari_mamba.io import row_of

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.preferences import Preferences

CLUSTERS = ("tcp://", "tls://", "ucx://")
"""How addresses of Dask schedulers begin; those of servers begin with http."""


@dataclass
class Options:
    """What a user chose about a run; see `RunOptions` for the meaning of those of the same name.

    Parameters
    ----------
    tile, spacing, overlap, batch_size, replace_nonfinite, strength, seed : str
        A number as text; of the first two, also three (z, y, x) with commas. Empty for the bundle's own. `strength` is
        in percent.
    evidence, spread : bool
        What `RunOptions.uncertainty` is to a classification and to a restoration. Each kind of map is asked for by
        itself: none follows from another.
    table, table_row : str
        A CSV with a row for the image, and what its row says; empty for the image's name.
    region : str
        Name of the Shapes or Labels layer whose box is run on; empty for the whole image.
    level : str
        Of an image in several resolutions, which one; empty for the finest.
    """

    device: str = "auto"
    precision: str = "auto"
    axis: str | None = None
    mirror: bool | None = None
    tile: str = ""
    overlap: str = ""
    batch_size: str = ""
    spacing: str = ""
    slice_profile: str | None = None
    uncertainty: bool = False
    spread: bool = False
    evidence: bool = False
    probabilities: bool = False
    residual: bool = False
    strength: str = ""
    clip: bool = True
    deterministic: bool = False
    replace_nonfinite: str = ""
    seed: str = ""
    table: str = ""
    table_row: str = ""
    region: str = ""
    level: str = ""
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    def prefer(self, preferences: Preferences, before: Preferences | None = None) -> None:
        """Take over the user's preferences for what they speak of; of those that were `before`, the changed ones."""
        known = {} if before is None else _preferred(before)
        for name, value in _preferred(preferences).items():
            if name not in known or known[name] != value:
                setattr(self, name, value)

    def reset(self, preferences: Preferences) -> None:
        """All as the bundle says, and the preferences."""
        for field in fields(self):
            setattr(self, field.name, field.default)
        self.prefer(preferences)

    def mirrored(self, bundle: Bundle) -> bool:
        """Whether mirrored copies are averaged; of a restoration only where its spread is asked for."""
        if not bundle.tile.mirror_axes:
            return False
        if self.mirror is None:
            return bundle.task != "restoration" or self.spread
        return self.mirror or (bundle.task == "restoration" and self.spread)

    def run_options(self, bundle: Bundle, order: Sequence[int] = (0, 1, 2), name: str | None = "") -> RunOptions:
        """The choices as the engine takes them.

        Parameters
        ----------
        bundle : Bundle
            Options that do not suit it are left away.
        order : sequence of int
            The volume's axis on each axis of the layer.
        name : str
            Of the image, by which its row of a table is found; None where the row is not wanted yet.

        Raises
        ------
        InputError
            If a number is none, or outside of what `RunOptions` allows.
        """
        suited = suited_options(bundle)
        axis = self.axis if "axis" in suited else None
        if axis in ("z", "y", "x"):
            axis = "zyx"[order["zyx".index(axis)]]
        spacing = parse_numbers(self.spacing, "voxel size", float) if "spacing" in suited else None
        if isinstance(spacing, tuple):
            placed = [0.0] * 3
            for layer_axis, volume_axis in enumerate(order):
                placed[volume_axis] = spacing[layer_axis]
            spacing = tuple(placed)
        maps = {"segmentation": self.uncertainty, "restoration": self.spread, "classification": self.evidence}
        chosen: dict[str, Any] = {
            "axis": axis,
            "mirror": self.mirrored(bundle) if "mirror" in suited else None,
            "tile": parse_numbers(self.tile, "tile", int) if "tile" in suited else None,
            "spacing": spacing,
            "slice_profile": self.slice_profile if "slice_profile" in suited else None,
            "uncertainty": bool(suited & {"uncertainty", "spread", "evidence"}) and maps.get(bundle.task, False),
            "probabilities": self.probabilities and "probabilities" in suited,
            "residual": self.residual and "residual" in suited,
            "strength": self._strength() if "strength" in suited else 1.0,
            "clip": self.clip or "clip" not in suited,
            "deterministic": self.deterministic,
            "overlap": one_number(self.overlap, "overlap", float) if "overlap" in suited else None,
            "batch_size": one_number(self.batch_size, "batch size", int),
            "replace_nonfinite": one_number(self.replace_nonfinite, "value for NaN", float),
            "seed": (one_number(self.seed, "seed", int) if "seed" in suited else None) or 0,
            "row": self._row(name) if "table" in suited and name is not None else None,
        }
        device = "auto" if self.elsewhere else self.device  # a server chooses among its own
        return RunOptions(device=device, precision=self.precision, **chosen)

    @property
    def resolution(self) -> int:
        """The level as a number; raises `InputError` where it is none."""
        return one_number(self.level, "level", int) or 0

    @property
    def elsewhere(self) -> bool:
        """Whether the chosen device is the address of another computer, or of a cluster."""
        return "://" in self.device

    @property
    def cluster(self) -> str:
        """The address of the Dask scheduler that is chosen as device; empty where none is."""
        return self.device if self.device.startswith(CLUSTERS) else ""

    def _row(self, name: str) -> dict[str, str] | None:
        return row_of(self.table, self.table_row or name) if self.table.strip() else None

    def _strength(self) -> float:
        percent = one_number(self.strength.strip().removesuffix("%"), "strength", float)
        return 1.0 if percent is None else percent / 100


def _preferred(preferences: Preferences) -> dict[str, Any]:
    """What preferences say of options."""
    device = preferences.scheduler or preferences.device
    return {"device": device, "precision": preferences.precision, "uncertainty": preferences.uncertainty}


def suited_options(bundle: Bundle | None) -> set[str]:
    """The options that a bundle can be given beside those of every run."""
    if bundle is None:
        return set()
    names = {"batch_size"} if bundle.task == "diffusion" else {"overlap", "batch_size"}
    if not bundle.tile.fixed:
        names.add("tile")
    if takes_slices(bundle):
        names.add("axis")
    if bundle.tile.mirror_axes:
        names.add("mirror")
    if any(step.get("step") == "refine" for step in bundle.preparation):
        names |= {"spacing", "slice_profile"}
    if bundle.task == "segmentation":
        names |= {"uncertainty", "probabilities"}
    elif bundle.task == "restoration":
        names |= {"residual", "clip", "strength"} | ({"spread"} if bundle.tile.mirror_axes else set())
    elif bundle.task == "classification":
        names |= {"table", "table_row"} if bundle.columns else {"evidence"}
    elif bundle.task == "diffusion":
        names.add("seed")
    return names


def takes_slices(bundle: Bundle | None) -> bool:
    """Whether a bundle's network is 2D, so that a volume can be cut along any axis."""
    return bundle is not None and len(bundle.tile.size) == 2


def one_number(text: str, what: str, kind: type) -> Any:
    """A number, or None for an empty text; raises `InputError` for anything else."""
    try:
        return kind(text) if text.strip() else None
    except ValueError:
        raise InputError(f"the {what} is one number, not '{text[:40]}'") from None


def parse_numbers(text: str, what: str, kind: type) -> Any:
    """One number or several, with commas or x between them; None for an empty text.

    Examples
    --------
    >>> parse_numbers("64", "tile", int), parse_numbers("1, 0.8 x 0.8", "voxel size", float)
    (64, (1.0, 0.8, 0.8))
    """
    if not text.strip():
        return None
    try:
        numbers = tuple(kind(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise InputError(
            f"the {what} is one number, or three for z, y and x such as 32,64,64, not '{text[:40]}'"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers
