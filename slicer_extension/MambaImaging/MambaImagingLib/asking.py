"""What a user asks for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .compute.bundles import BundleInfo
from .compute.jobs import Options
from .nodes import sequences, volumes
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
    count = len(bundle.channels)
    if mode != "one" and count > 1:
        raise volumes.Unusable(f"{bundle.name} takes {count} volumes: run it on one case at a time")
    if mode == "list":
        if not batch:
            raise volumes.Unusable("choose the volumes of the batch")
        return Request(bundle, tuple((node,) for node in batch), **more)
    chosen = inputs[:count]
    missing = [name for name, node in zip(bundle.channels, [*chosen, *[None] * count], strict=False) if node is None]
    if missing:
        raise volumes.Unusable(f"choose an input volume for: {', '.join(missing)}")
    if mode == "sequence":
        try:
            frames = sequences.frames_of(chosen[0])
        except ValueError as error:
            raise volumes.Unusable(str(error)) from error
        return Request(bundle, tuple((node,) for _, node in frames), sequence_of=chosen[0], **more)
    return Request(bundle, (tuple(chosen),), **more)
