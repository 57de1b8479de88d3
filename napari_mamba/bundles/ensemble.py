"""Several bundles as one: the members of an ensemble, whose answers a run averages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from napari_mamba.bundles.bundle import Bundle, load
from napari_mamba.bundles.spec import BundleSpec
from napari_mamba.bundles.writer import check_destination, save
from napari_mamba.errors import InputError
from napari_mamba.io.paths import expanded

SINGLE_BUNDLE_KEYS = ("metrics", "changelog", "description", "references")
"""What tells of one member alone, and may differ; the first one's is kept."""
_NETWORK = ("network", "member_networks")


def join(
    members: Sequence[str | os.PathLike[str]],
    destination: str | os.PathLike[str],
    *,
    round_robin: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write the ensemble of bundles that differ in their weights, such as those of one recipe and several seeds.

    Their networks may be of several kinds, where all are prepared and tiled alike: a recipe's variants, say.

    Its numbers are those of none of its members: its card says that nothing was measured, until an evaluation does.

    Parameters
    ----------
    members : sequence of name or path
        Two or more; one that is an ensemble itself brings all of its own.
    destination : path
        A folder to make, or a file ending in ".zip".
    round_robin : bool
        Deal the mirrored copies out to the members, one each in turn, so that two members take no longer than one.
    overwrite : bool
        As in `bundles.save`.

    Returns
    -------
    Path
        `destination`.

    Raises
    ------
    InputError
        If there is one member alone, the same one twice, or two that are not of the same preparation, tile or classes.
    OutputError
        If `destination` exists or cannot be written.

    Examples
    --------
    >>> join(["runs/a/hippocampus-mr", "runs/b/hippocampus-mr"], "runs/hippocampus-mr")  # doctest: +SKIP
    """
    from napari_mamba.bundles.weights import smallest

    check_destination(expanded(destination), overwrite)
    bundles = [load(member) for member in members]
    if len(bundles) < 2:
        raise InputError("an ensemble has two members or more: name two bundles")
    first, *others = bundles
    for other in others:
        _check_alike(first, other)
    if len({bundle.sha256 for bundle in bundles}) < len(bundles):
        raise InputError("the same bundle is named twice: the mean of an answer and itself is that answer")
    weights = [one for bundle in bundles for one in bundle.state_dicts()]
    runs = [run for bundle in bundles for run in _runs(bundle)]
    tile = replace(first.tile, round_robin=round_robin or first.tile.round_robin)
    kinds = [kind for bundle in bundles for kind in bundle.networks_of(len(bundle.weights))]
    several = tuple(kinds) if any(kind != kinds[0] for kind in kinds) else ()
    described = replace(
        first.spec, tile=tile, metrics={"trained": {"members": runs}}, changelog={}, member_networks=several
    )
    card = _card(described, len(weights))
    return save(destination, described, weights, card, dtype=smallest(weights), overwrite=overwrite)


def _check_alike(first: Bundle, other: Bundle) -> None:
    differ = [
        field.name
        for field in fields(BundleSpec)
        if field.name not in SINGLE_BUNDLE_KEYS + _NETWORK and getattr(first, field.name) != getattr(other, field.name)
    ]
    if differ:
        raise InputError(
            f"{first.path} and {other.path} differ in {', '.join(differ)}: "
            "the members of an ensemble differ in their networks and weights alone"
        )


def _runs(bundle: Bundle) -> list[dict[str, Any]]:
    """How each member of a bundle was trained."""
    trained = dict(bundle.metrics.get("trained", {}))
    return list(trained.get("members", [trained]))


def _card(spec: BundleSpec, count: int) -> str:
    return (
        f"# {spec.name}\n\n{spec.description}\n\n{spec.intended_use}\n\nAn ensemble of {count} networks, whose answers "
        f"are averaged. It has not been measured yet: the numbers of its members are not its own.\n\n"
        f"{spec.data_source}\n\n{spec.copyright}\n"
    )
