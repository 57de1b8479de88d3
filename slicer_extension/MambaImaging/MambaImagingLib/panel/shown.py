"""What the panel says, as plain functions of what is known: no Qt."""

from __future__ import annotations

from typing import Any

from ..compute.bundles import BundleInfo
from ..compute.following import Follower

NOT_CLINICAL = "Not for clinical use."
BUSY = "A run goes on."
STAGES = {
    "": "starting",
    "waiting": "waiting for the server",
    "loading": "loading PyTorch and the bundle",
    "checking": "checking the image",
    "preparing": "preparing the image",
    "warming up": "warming up the network",
    "network": "computing",
    "restoring": "bringing the answer to the image's grid",
    "measuring": "measuring",
    "writing": "writing",
}


def duration(seconds: float) -> str:
    """A time span for people.

    >>> duration(8.4), duration(125), duration(7300)
    ('8 s', '2 min 05 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def progress(follower: Follower) -> str:
    """One line about a run that goes on."""
    if follower.place_in_queue:
        return f"Waiting: {follower.place_in_queue} before this run."
    case = f"{follower.cases[-1].number + 1} of {follower.count}, " if follower.count > 1 and follower.cases else ""
    left = f", {duration(follower.seconds_left)} left" if follower.seconds_left else ""
    said = STAGES.get(follower.stage, follower.stage)
    return f"{case}{said}{left}."[:1].upper() + f"{case}{said}{left}."[1:]


def why_not(bundle: BundleInfo | None, wanted: str, mode: str, inputs: list[Any], batch: list[Any], busy: bool) -> str:
    """Why a run cannot begin now; empty if it can.

    Parameters
    ----------
    bundle : BundleInfo or None
        The chosen one, if the place has it.
    wanted : str
        The chosen one's name.
    mode : {"one", "sequence", "list"}
    inputs, batch : list
        Nodes, None where nothing is chosen.
    busy : bool
    """
    if busy:
        return BUSY
    if bundle is None and wanted:
        return f"The bundle {wanted} is not at this place: choose another one, or check where it computes."
    if bundle is None:
        return "Choose where it computes and check it: then bundles can be chosen."
    if not bundle.usable:
        return f"{bundle.name} is for {bundle.task}, which this module cannot run: use the command napari-mamba."
    if mode == "list":
        return "" if batch else "Choose the volumes of the batch."
    missing = [
        name
        for name, node in zip(bundle.channels, [*inputs, *[None] * len(bundle.channels)], strict=False)
        if node is None
    ]
    return f"Choose a volume for: {', '.join(missing)}." if missing else ""


def bundle_entries(bundles: list[BundleInfo], wanted: str) -> list[tuple[str, str]]:
    """Text and name of each entry of the list; one that a scene wants and the place lacks is shown as missing.

    Bundles for tasks that this module cannot run are left out, unless a scene wants one.

    >>> bundle_entries([BundleInfo("a", "A"), BundleInfo("d", "D", "dose")], "gone")
    [('gone (not here)', 'gone'), ('A  [a]', 'a')]
    """
    entries = [(f"{one.title}  [{one.name}]", one.name) for one in bundles if one.usable or one.name == wanted]
    if wanted and wanted not in {one.name for one in bundles}:
        entries.insert(0, (f"{wanted} (not here)", wanted))
    return entries
