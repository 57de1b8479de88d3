"""A `BundleSpec` from `bundle.json`."""

from __future__ import annotations

import re
from typing import Any

from napari_mamba.bundles.description.fields import Fields
from napari_mamba.bundles.description.old_keys import TILE, current_step, renamed
from napari_mamba.bundles.guards.columns import columns_of
from napari_mamba.bundles.guards.locator import locator_of
from napari_mamba.bundles.guards.planning import planning_of
from napari_mamba.bundles.spec import BundleSpec, Channel, LabelClass, Network, SmallerTile, Tile
from napari_mamba.bundles.vocabulary import FORMAT, FORMAT_VERSION
from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted

_WEIGHTS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors")
_SUM = re.compile(r"[0-9a-f]{64}")
_MOST_NETWORKS, _LONGEST_NAME = 64, 120


def from_json(values: Any, where: str) -> tuple[BundleSpec, tuple[str, ...], dict[str, str]]:
    """Read `bundle.json`, already parsed.

    Parameters
    ----------
    values : Any
        What `json.loads` gave.
    where : str
        The bundle's place, for messages.

    Returns
    -------
    spec, weights, sha256
        `weights` are file names; `sha256` maps the names of files to their checksums.

    Raises
    ------
    BundleError
        If a field is missing, of the wrong type, or contradicts another.
    """
    top = Fields(values, where)
    if top.text("format", "") != FORMAT:
        raise BundleError(f'{where}: is not a napari-mamba bundle (no "format": "{FORMAT}")')
    if top.number("format_version", 0) > FORMAT_VERSION:
        raise BundleError(f"{where}: was written by a later version of napari-mamba: update napari-mamba")
    try:
        spec = _spec(top)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise BundleError(f"{where}: contradicts itself ({type(error).__name__}: {quoted(error)})") from error
    weights = top.texts("weights")
    if not 0 < len(weights) <= _MOST_NETWORKS or len(set(weights)) < len(weights):
        raise BundleError(f"{where}: 'weights' names each of 1 to {_MOST_NETWORKS} weight files once")
    if spec.member_networks and len(spec.member_networks) != len(weights):
        raise BundleError(
            f"{where}: names {len(weights)} weight files, and {len(spec.member_networks)} networks for them"
        )
    for name in weights:
        if not _WEIGHTS.fullmatch(name) or len(name) > _LONGEST_NAME:
            raise BundleError(f"{where}: weights are '.safetensors' files beside bundle.json, not {quoted(name)}")
    sums = {str(name): str(value).lower() for name, value in top.mapping("sha256", {}).items()}
    if odd := [name for name, value in sums.items() if not _SUM.fullmatch(value)]:
        raise BundleError(f"{where}: the sha256 of {quoted(odd[0])} is no checksum: get the bundle again")
    return spec, weights, sums


def _spec(top: Fields) -> BundleSpec:
    return BundleSpec(
        **{key: top.text(key) for key in ("name", "version", "title", "task")},
        network=_network(top.fields("network")),
        channels=tuple(Channel(one.text("name"), one.text("modality", "")) for one in top.items("channels")),
        preparation=tuple(current_step(one.values) for one in top.items("preparation")),
        tile=_tile(top.fields("tile")),
        activation=top.text("activation", "softmax"),
        classes=tuple(_label_class(one) for one in top.items("classes", ())),
        **{key: top.text(key, "") for key in ("description", "authors", "copyright", "licence")},
        **{key: top.text(key, "") for key in ("data_source", "intended_use")},
        references=top.texts("references", ()),
        postprocessing=tuple(current_step(one.values) for one in top.items("postprocessing", ())),
        metrics=top.mapping("eval_metrics", {}),
        changelog=top.mapping("changelog", {}),
        planning=planning_of(top.fields("planning")) if "planning" in top.values else None,
        locator=locator_of(top.fields("locator")) if "locator" in top.values else None,
        columns=columns_of(top.items("columns", ())),
        member_networks=tuple(_network(one) for one in top.items("member_networks", ())),
    )


def _network(one: Fields) -> Network:
    return Network(one.text("name"), one.mapping("arguments", {}))


def _tile(one: Fields) -> Tile:
    one = Fields(renamed(one.values, TILE), one.where)
    return Tile(
        size=one.integers("size"),
        overlap=one.number("overlap", 0.5),
        mirror_axes=one.integers("mirror_axes", ()),
        divisor=one.integers("divisor", ()),
        fixed=one.flag("fixed", False),
        accumulate_dtype=one.text("accumulate_dtype", "float32"),
        left_right_pairs=one.integers("left_right_pairs", ()),
        fit_tiles=one.flag("fit_tiles", False),
        round_robin=one.flag("round_robin", False),
        smaller=tuple(SmallerTile(each.integers("size"), each.number("kept")) for each in one.items("smaller", ())),
        frames=one.integer("frames", 0),
        reflect_below=one.integers("reflect_below", ()),
    )


def _label_class(one: Fields) -> LabelClass:
    texts = {key: one.text(key, "") for key in ("color", "code", "meaning", "laterality")}
    return LabelClass(one.integer("index"), one.text("name"), **texts)
