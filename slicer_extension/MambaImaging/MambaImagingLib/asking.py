"""What a user asks for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .compute.bundles import BundleInfo
from .compute.jobs import Options
from .compute.look import MAPS, Look
from .nodes import points, sequences, volumes
from .nodes.results import Placed, Wanted


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Attributes
    ----------
    bundle : BundleInfo
    cases : tuple of tuples of nodes
        The channels of each case.
    options : Options
    wanted : Wanted
    region : vtkMRMLMarkupsROINode, optional
        Answer only inside of it.
    sequence_of : vtkMRMLScalarVolumeNode, optional
        The volume whose sequence's frames are the cases; the results become a sequence too.
    surfaces : bool
        Make closed surfaces of the segments.
    """

    bundle: BundleInfo
    cases: tuple[tuple[Any, ...], ...]
    options: Options = field(default_factory=Options)
    wanted: Wanted = field(default_factory=Wanted)
    region: Any = None
    sequence_of: Any = None
    surfaces: bool = False


@dataclass(frozen=True)
class LookRequest:
    """A look inside: a network on one image.

    Attributes
    ----------
    bundle : BundleInfo
    volumes : tuple of nodes
        Its channels.
    look : Look
    point : tuple of 3 float, optional
        What is asked about, in the scene's world (RAS mm); None: the image's middle.
    options : Options
    """

    bundle: BundleInfo
    volumes: tuple[Any, ...]
    look: Look = field(default_factory=Look)
    point: tuple[float, float, float] | None = None
    options: Options = field(default_factory=Options)


@dataclass
class Report:
    """What came of a run. `error` and each of `failed` are sentences for the user."""

    placed: list[Placed] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    cancelled: bool = False
    log: str = ""
    sequence: Any = None
    listed: dict[str, Any] = field(default_factory=dict)
    """Of a look that only lists: `maps` and `layers`."""

    @property
    def nodes(self) -> list[Any]:
        """All new nodes."""
        return [node for one in self.placed for node in one.nodes]

    def sentence(self) -> str:
        """What to tell the user."""
        if self.cancelled:
            return "Cancelled: nothing was added to the scene."
        if self.error:
            return self.error[:1].upper() + self.error[1:]
        said = [f"Done: {len(self.placed)} of {len(self.placed) + len(self.failed)}."] if self.failed else ["Done."]
        empty = sorted({name for one in self.placed for name in one.empty})
        if empty:
            said.append(f"No voxel was found of: {', '.join(empty)}.")
        return " ".join([*said, *self.failed, *dict.fromkeys(self.notes)])


def request_for(bundle: BundleInfo, mode: str, inputs: list[Any], batch: list[Any], **more: Any) -> Request:
    """A request in one of the modes "one", "sequence" and "list".

    Raises
    ------
    volumes.Unusable
        If nodes are missing, or the mode does not suit the bundle.
    """
    _check_task(bundle)
    count = len(bundle.channels)
    if mode != "one" and count > 1:
        raise volumes.Unusable(f"{bundle.name} takes {count} volumes: run it on one case at a time")
    if mode == "list":
        if not batch:
            raise volumes.Unusable("choose the volumes of the batch")
        return Request(bundle, tuple((node,) for node in batch), **more)
    chosen = _channels(bundle, inputs)
    if mode == "sequence":
        try:
            frames = sequences.frames_of(chosen[0])
        except ValueError as error:
            raise volumes.Unusable(str(error)) from error
        return Request(bundle, tuple((node,) for _, node in frames), sequence_of=chosen[0], **more)
    return Request(bundle, (tuple(chosen),), **more)


def look_request(bundle: BundleInfo, inputs: list[Any], look: Look, point: Any = None, device: str = "") -> LookRequest:
    """A request for a look inside.

    Parameters
    ----------
    point : node or 3 floats, optional
        A markups node, whose first control point counts, or a place in the world (RAS mm).

    Raises
    ------
    volumes.Unusable
        If a node is missing, or a map is unknown.
    """
    _check_task(bundle)
    unknown = [name for name in look.maps if name not in MAPS]
    if unknown or not look.maps:
        raise volumes.Unusable(f"there is no map {(unknown or [''])[0]!r}: choose among {', '.join(MAPS)}")
    chosen = _channels(bundle, inputs)
    return LookRequest(bundle, tuple(chosen), look, points.world_of(point), Options(device=device or "auto"))


def _check_task(bundle: BundleInfo) -> None:
    if not bundle.usable:
        raise volumes.Unusable(
            f"{bundle.name} is for {bundle.task}, which this module cannot run: use the command napari-mamba"
        )


def _channels(bundle: BundleInfo, inputs: list[Any]) -> list[Any]:
    count = len(bundle.channels)
    chosen = inputs[:count]
    missing = [name for name, node in zip(bundle.channels, [*chosen, *[None] * count], strict=False) if node is None]
    if missing:
        raise volumes.Unusable(f"choose an input volume for: {', '.join(missing)}")
    return chosen
