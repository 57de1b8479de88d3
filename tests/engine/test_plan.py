"""How many tiles are run at once."""

from __future__ import annotations

import pytest
import torch
from engine_fakes import fake_bundle

from napari_mamba.bundles import Network, Tile
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import plan_run


@pytest.mark.parametrize(("network", "sizes"), [("fdv_net", (1, 1)), ("vmambair", (4, 3))])
def test_images_that_change_each_other_are_never_run_together(network: str, sizes: tuple[int, int]) -> None:
    bundle = fake_bundle(task="restoration", network=Network(network), tile=Tile((64, 64)))
    cpu = torch.device("cpu")
    assert (
        plan_run(bundle, RunOptions(), cpu).batch_size,
        plan_run(bundle, RunOptions(batch_size=3), cpu).batch_size,
    ) == sizes
