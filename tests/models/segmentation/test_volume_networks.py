"""EM-Net, Mamba-ND's UNETR, MambaDFuse and Vim4Path beyond their vectors: what keys tell, what is refused."""

from __future__ import annotations

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.segmentation.volumes.mamba_nd import likely_size

SMALL = {"depths": [1, 1, 1, 1], "feat_size": [8, 8, 8, 8], "hidden_size": 8}


@pytest.mark.parametrize(
    "arguments",
    [
        {"fft_nums": [0, 0, 1, 1], "in_shpae": (64, 64, 32)},
        {"fft_nums": [1, 0, 0, 0], "in_shpae": (32, 32, 64), "ds": True},
        {"fft_nums": [0, 0, 0, 0], "in_shpae": (32, 32, 32), "conv_decoder": True},
        {"fft_nums": [1, 1, 1, 1], "in_shpae": (64, 64, 32)},
    ],
)
def test_em_net_is_read_off_its_keys_but_for_the_scan_of_its_spatial_branch(arguments: dict) -> None:
    found = models.identify(models.create("em_net", **SMALL, **arguments).state_dict())
    assert found.name == "em_net"
    assert found.ambiguous[0] == "spatial_mamba"
    assert "13 December 2024" in found.note
    assert {key: found.arguments[key] for key in arguments} == arguments


def test_em_net_gives_three_resolutions() -> None:
    network = models.create("em_net", **SMALL, in_shpae=(32, 32, 32), ds=True, out_chans=2).eval()
    with torch.no_grad():
        sizes = [y.shape[2:].numel() for y in network(torch.zeros(1, 1, 32, 32, 32))]
    assert sizes == [32**3, 8**3, 4**3]


def test_sizes_of_patches() -> None:
    assert likely_size(144) == (64, 96, 96)
    assert likely_size(216) == (96, 96, 96)
    found = models.identify(
        models.create("mamba_nd_unetr", in_channels=1, out_channels=2, feature_size=4, hidden_size=16).state_dict()
    )
    assert (found.arguments["img_size"], found.ambiguous) == ((96, 96, 96), ())


def test_fusion_depends_on_which_image_is_which() -> None:
    torch.manual_seed(0)
    network = models.create("mambadfuse", embed_dim=8).eval()
    a, b = torch.rand(2, 1, 1, 7, 9).unbind()
    with torch.no_grad():
        assert network(a, b).shape == (1, 1, 7, 9)
        assert not torch.allclose(network(a, b), network(b, a))


def test_vim4path_asks_for_a_vim_of_two_classes() -> None:
    vim = models.create("vim", img_size=64, depth=1, embed_dim=16, num_classes=2)
    found = models.identify(vim.state_dict())
    assert (found.name, found.ambiguous) == ("vim4path", ("if_devide_out",))
    assert '"vim"' in found.note
    assert models.identify(vim.state_dict(), name="vim").name == "vim"
    assert models.identify(models.create("vim", depth=1, embed_dim=16, num_classes=3).state_dict()).name == "vim"


def test_vim4path_is_found_in_dinos_checkpoint(tmp_path) -> None:
    """As its authors' training writes it: the teacher's encoder, without the classes' head, beside DINO's own head."""
    from argparse import Namespace

    from napari_mamba.bundles.importers.pickles import read_checkpoint

    torch.manual_seed(0)
    network = models.create("vim4path", img_size=64, depth=1, embed_dim=16, num_classes=0)
    encoder = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    head = {"head.mlp.0.weight": torch.ones(8, 16), "head.last_layer.weight_v": torch.ones(4, 8)}
    student = {f"module.{key}": torch.zeros_like(value) for key, value in (encoder | head).items()}
    written = {"student": student, "teacher": encoder | head, "epoch": 3, "args": Namespace(arch="vim-t", seed=0)}
    torch.save(written, tmp_path / "checkpoint.pth")
    checkpoint = read_checkpoint(tmp_path / "checkpoint.pth")
    found = models.identify(checkpoint)
    assert (found.name, found.container, found.prefix) == ("vim4path", ("teacher",), "backbone.")
    again = models.create("vim4path", **found.arguments)
    again.load_state_dict(found.weights(checkpoint), strict=True)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in network.state_dict().items())


def test_refusals_are_sentences() -> None:
    with pytest.raises(InputError, match="two equal sides"):
        models.create("em_net", **SMALL, in_shpae=(32, 64, 32))
    with pytest.raises(InputError, match="one channel"):
        models.create("em_net", **SMALL, in_shpae=(32, 32, 32), in_chans=2)
    with pytest.raises(InputError, match="use tiles"):
        models.create("em_net", **SMALL, in_shpae=(32, 32, 32))(torch.zeros(1, 1, 64, 64, 32))
    with pytest.raises(InputError, match="multiples of 16"):
        models.create("mamba_nd_unetr", in_channels=1, out_channels=2, img_size=(16, 32, 48))
    with pytest.raises(InputError, match="use tiles"):
        models.create("mamba_nd_unetr", in_channels=1, out_channels=2, feature_size=4, hidden_size=16)(
            torch.zeros(1, 1, 32, 32, 32)
        )
    with pytest.raises(InputError, match="resample one"):
        models.create("mambadfuse", embed_dim=8)(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))
    with pytest.raises(InputError, match="crop or resize"):
        models.create("vim4path", depth=1, embed_dim=16)(torch.zeros(1, 3, 30, 32))
