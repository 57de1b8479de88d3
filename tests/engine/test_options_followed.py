"""What a bundle of each task cannot follow is refused or said, never passed over."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from engine_fakes import Apply, fake_bundle, two_classes

from napari_mamba.bundles.spec import Tile
from napari_mamba.bundles.vocabulary import TASKS
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.options import _NAMES, check_followed
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

CHANGED = {
    "tile": 32, "overlap": 0.25, "mirror": True, "batch_size": 2, "axis": "y", "spacing": 1.0, "slice_profile": "sinc",
    "strength": 0.5, "clip": False, "replace_nonfinite": 0.0, "region": (0.0, 0.0, 0.0, 9.0, 9.0, 9.0), "seed": 3,
    "ahead": 4,
}  # fmt: skip
ANY = {"device", "precision", "deterministic", "row"}
"""Of every run, or looked at elsewhere (`row`)."""
MAPS = {"uncertainty", "probabilities", "residual"}
"""Outputs, which the answers refuse."""
OTHERS = {"replace_nonfinite", "region"}
FOLLOWED = {
    "segmentation": {"tile", "overlap", "mirror", "batch_size", "axis", "spacing", "slice_profile"} | OTHERS,
    "restoration": set(CHANGED) - {"seed", "ahead"},
    "classification": {"tile", "overlap", "mirror", "batch_size", "axis", "spacing", "slice_profile"} | OTHERS,
    "dose": {"tile", "overlap", "mirror", "batch_size", "axis", "spacing", "slice_profile"} | OTHERS,
    "fusion": {"tile", "overlap", "mirror", "batch_size", "axis", "spacing", "slice_profile"} | OTHERS,
    "registration": OTHERS,
    "slide": set(),
    "diffusion": {"tile", "batch_size", "axis", "spacing", "slice_profile", "seed"} | OTHERS,
    "prediction": {"ahead"} | OTHERS,
    "features": {"batch_size"},
}  # fmt: skip


def test_every_option_and_task_is_looked_at():
    assert set(CHANGED) == set(_NAMES)
    assert {field.name for field in dataclasses.fields(RunOptions)} == set(_NAMES) | ANY | MAPS
    assert set(FOLLOWED) == set(TASKS)


@pytest.mark.parametrize("task", FOLLOWED)
def test_what_means_nothing_to_a_task_is_refused(task):
    bundle = SimpleNamespace(name="b", task=task, tile=Tile((16, 16, 16), mirror_axes=(0, 1, 2)))
    assert check_followed(bundle, RunOptions(mirror=False)) == []
    for name, value in CHANGED.items():
        options = RunOptions(**{name: value})
        if name in FOLLOWED[task]:
            assert check_followed(bundle, options) == []
        else:
            with pytest.raises(InputError, match=f"^b .*leave the {_NAMES[name]} away$"):
                check_followed(bundle, options)


def test_copies_that_a_bundle_does_not_allow_are_told_of():
    bundle = fake_bundle(Apply(two_classes), classes=2)
    volume = Volume(np.random.default_rng(0).random((1, 16, 16, 16), np.float32), np.eye(4))
    told = [run_to_end(volume, bundle, RunOptions(device="cpu", mirror=asked)).warnings for asked in (True, None)]
    assert set(told[0]) - set(told[1]) == {"fake allows no mirrored copies: none were averaged."}
    with pytest.raises(InputError, match="fake is for segmentation, and a seed is for diffusion"):
        run_to_end(volume, bundle, RunOptions(device="cpu", seed=1))
