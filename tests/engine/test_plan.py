"""How many tiles are run at once, and which smaller ones a run goes back to."""

from __future__ import annotations

import pytest
import torch
from engine_fakes import fake_bundle

from napari_mamba.bundles import Network, Tile, load
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import LEAST_KEPT, plan_run
from napari_mamba.errors import BundleError


@pytest.mark.parametrize(("network", "sizes"), [("fdv_net", (1, 1)), ("vmambair", (4, 3))])
def test_images_that_change_each_other_are_never_run_together(network: str, sizes: tuple[int, int]) -> None:
    bundle = fake_bundle(task="restoration", network=Network(network), tile=Tile((64, 64)))
    cpu = torch.device("cpu")
    assert (
        plan_run(bundle, RunOptions(), cpu).batch_size,
        plan_run(bundle, RunOptions(batch_size=3), cpu).batch_size,
    ) == sizes


@pytest.mark.parametrize(("name", "sizes"), [("hippocampus-mr", [(40, 32, 40)]), ("organs-headneck-ct", [])])
def test_a_shipped_bundle_goes_back_to_tiles_that_keep_its_answer_alone(name, sizes):
    bundle = load(SHIPPED / name)
    plan = plan_run(bundle, RunOptions(), torch.device("cpu"))
    assert [one.size for one in plan.smaller_tiles] == sizes
    assert min(one.kept for one in bundle.tile.smaller) < LEAST_KEPT, "others were measured, and leave more to the CPU"


def test_a_bundle_says_below_which_size_images_are_mirrored():
    plan = plan_run(
        fake_bundle(classes=2, tile=Tile((16, 16, 16), reflect_below=(8, 9, 10))), RunOptions(), torch.device("cpu")
    )
    shapes = [(8, 9, 10), (7, 20, 20), (20, 8, 20), (20, 20, 9)]
    assert [plan.tiling(shape).reflect for shape in shapes] == [False, True, True, True]
    with pytest.raises(BundleError, match="reflect_below has one size for each of 3 axes"):
        fake_bundle(classes=2, tile=Tile((16, 16, 16), reflect_below=(8, 9)))
