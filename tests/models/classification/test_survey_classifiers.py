"""PlainMamba, EfficientVMamba, LocalMamba and Mamba-ND beyond their vectors: paths by hand, refusals, arguments."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.classification.efficient_vmamba import lattices
from napari_mamba.models.classification.plain_mamba import moves
from napari_mamba.nn.mixers.images.local_paths import local_path
from napari_mamba.scan import scan_order

CLASS_TOKEN = {"if_cls_token": True, "use_middle_cls_token": True, "directions": "searched", "depth": 1}


def test_moves_of_plain_mamba_lead_from_one_cell_to_the_next() -> None:
    steps = {1: (0, 1), 2: (0, -1), 3: (-1, 0), 4: (1, 0)}
    table = scan_order("continuous", (3, 2)).table
    for path, codes in zip(table.tolist(), moves((3, 2)).tolist(), strict=True):
        assert codes[path[0]] == 0
        for before, cell in pairwise(path):
            row, column = divmod(before, 2)
            down, right = steps[codes[cell]]
            assert (row + down, column + right) == divmod(cell, 2)


def test_lattices_of_efficient_vmamba() -> None:
    assert lattices(4, 2).tolist() == [[0, 4], [2, 6], [1, 5], [3, 7]]
    assert lattices(2, 4).tolist() == [[0, 2], [4, 6], [1, 3], [5, 7]]
    assert lattices(4, 4)[1].tolist() == [4, 12, 6, 14]  # down the columns


@pytest.mark.parametrize("flip", ["", "_flip"])
@pytest.mark.parametrize("kind", ["h", "v", "w2", "w7"])
def test_local_scans_put_each_token_back_on_a_square_map(kind: str, flip: str) -> None:
    tokens = torch.arange(1.0, 26).view(1, 25, 1)
    path = local_path(kind + flip, (5, 5))
    rows = path.gather(tokens)
    assert torch.equal(path.put_back(rows), tokens)
    assert rows.sum() == tokens.sum()  # all else is padding with zeros
    assert len(rows[0]) == {"h": 25, "v": 25, "w2": 36, "w7": 49}[kind]


def test_local_scans_by_hand() -> None:
    assert local_path("w2", (2, 3)).steps.tolist() == [0, 1, 3, 4, 2, 6, 5, 6]
    assert local_path("w2", (2, 3)).cells.tolist() == [0, 1, 3, 4, 2, -1, 5, -1]
    assert local_path("h_flip", (1, 4), class_token=True).steps.tolist() == [4, 3, 2, 1, 0]
    # On other maps what columns give goes back elsewhere, as published.
    tokens = torch.arange(6.0).view(1, 6, 1)
    path = local_path("v", (2, 3))
    assert path.put_back(path.gather(tokens)).flatten().tolist() == [0, 4, 3, 2, 1, 5]


def test_refusals_are_sentences() -> None:
    with pytest.raises(InputError, match="square maps"):
        models.create("mamba_nd", img_size=32, embed_dims=16, num_layers=2)(torch.zeros(1, 3, 32, 48))
    with pytest.raises(InputError, match="resize them"):
        models.create("local_vim", img_size=32, embed_dim=16, if_abs_pos_embed=True, **CLASS_TOKEN)(
            torch.zeros(1, 3, 32, 48)
        )
    with pytest.raises(InputError, match="name them all"):
        models.create("local_vim", embed_dim=16, depth=21, directions="searched")
    with pytest.raises(InputError, match="a scan is called"):
        models.create("local_vim", embed_dim=16, depth=1, directions=[["x"]])(torch.zeros(1, 3, 32, 48))
    with pytest.raises(InputError, match="name them all"):
        models.create("local_vmamba", depths=[2], dims=8, directions=[["h"]])
    with pytest.raises(InputError, match="step_size"):
        models.create("efficient_vmamba", step_size=3)
    with pytest.raises(InputError, match="arch"):
        models.create("plain_mamba", arch="L4")


def test_scans_that_keys_do_not_tell_are_asked_for() -> None:
    scans = [["h", "w2", "w2_flip", "v"]]
    network = models.create("local_vim", img_size=32, embed_dim=16, depth=1, if_abs_pos_embed=True, directions=scans)
    assert models.identify(network.state_dict()).ambiguous == ("directions",)
    small = models.create("local_vmamba", depths=[1], dims=8, directions=scans)
    assert models.identify(small.state_dict()).ambiguous == ("directions",)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("plain_mamba", {"embed_dims": 16, "num_layers": 2, "patch_size": 8, "layers_with_dwconv": (1,)}),
        ("efficient_vmamba", {"dims": [8, 16], "depths": [1, 2], "mlp_ratio": 2.0, "downsample_version": "v2"}),
        ("mamba_nd", {"embed_dims": 16, "num_layers": 2, "patch_size": 8, "downsample": [0, 2], "d_state": 4}),
    ],
)
def test_other_arguments_are_told_by_the_keys(name: str, arguments: dict) -> None:
    found = models.identify(models.create(name, **arguments).state_dict())
    assert (found.name, found.ambiguous) == (name, ())
    assert arguments.items() <= dict(found.arguments).items()
