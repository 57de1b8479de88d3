"""Bundles of earlier versions are read under today's names."""

import json
from dataclasses import fields

import pytest

from napari_mamba import bundles
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.bundles.description import old_keys
from napari_mamba.bundles.spec import Tile
from napari_mamba.bundles.vocabulary import POSTPROCESSING_STEPS, STEPS


def test_every_old_name_leads_to_one_that_is_known():
    options = {
        name: POSTPROCESSING_STEPS.get(name, frozenset()) | STEPS.get(name, frozenset()) for name in old_keys.OPTIONS
    }
    assert set(old_keys.STEPS.values()) <= set(STEPS) | set(POSTPROCESSING_STEPS)
    assert all(set(names.values()) <= options[name] for name, names in old_keys.OPTIONS.items())
    assert set(old_keys.TILE.values()) <= {field.name for field in fields(Tile)}


@pytest.mark.parametrize(
    ("step", "today"),
    [
        ({"step": "tell_finer"}, {"step": "append_upsampling_channel"}),
        (
            {"step": "centre", "least": 0.5, "whole": True},
            {"step": "centre", "min_coverage": 0.5, "require_whole": True},
        ),
        ({"step": "refine", "keep_slices": 1, "data_consistency": 2}, {"step": "refine", "data_consistency": 2}),
        ({"step": "orient", "axcodes": "RAS"}, {"step": "orient", "axcodes": "RAS"}),
        ({"step": ["centre"]}, {"step": ["centre"]}),
        ({"least": 0.5}, {"least": 0.5}),
    ],
)
def test_a_step_under_todays_names(step, today):
    assert old_keys.current_step(step) == today


@pytest.mark.parametrize("name", sorted(folder.name for folder in SHIPPED.iterdir()))
def test_shipped_bundles_mean_what_they_said(name):
    said = json.loads((SHIPPED / name / "bundle.json").read_text(encoding="utf-8"))["tile"]
    tile = bundles.load(name).tile
    assert list(tile.left_right_pairs) == list(said.get("sides", said.get("left_right_pairs", [])))
    assert tile.round_robin == said.get("dealt", said.get("round_robin", False))
    assert tile.fit_tiles == said.get("snug", said.get("fit_tiles", False))
    assert tile.accumulate_dtype == said.get("sums", said.get("accumulate_dtype", "float32"))
