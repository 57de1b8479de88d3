"""What bundles of earlier versions call a step, its options and the settings of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STEPS = {
    "tell_finer": "append_upsampling_channel",
    "thickest_first": "slice_axis_first",
    "doubt_volume": "warn_volume",
    "doubt_missing": "warn_missing",
}
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "refine": {"largest_factor": "max_factor", "keep_slices": "data_consistency"},
    "centre": {"least": "min_coverage", "whole": "require_whole"},
    "field_of_view": {"refuse": "max_mm"},
    "keep_largest": {"together": "as_one_structure"},
}
TILE = {"dealt": "round_robin", "sides": "left_right_pairs", "snug": "fit_tiles", "sums": "accumulate_dtype"}


def current_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step under today's names.

    Examples
    --------
    >>> current_step({"step": "refine", "keep_slices": True})
    {'step': 'refine', 'data_consistency': True}
    """
    name = step.get("step", "")
    if not isinstance(name, str):
        return dict(step)
    named = renamed(step, OPTIONS.get(name, {}))
    return {**named, "step": STEPS.get(name, name)} if "step" in named else named


def renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The values, those under an old name under the new one; where both are there, the new one's stays."""
    current = {key: value for key, value in values.items() if key not in names}
    old = {names[key]: value for key, value in values.items() if key in names}
    return old | current
