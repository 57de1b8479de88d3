"""TP-Mamba beyond its vector: SAM's attention written out, what each mode lets meet, what keys tell, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_networks import TP_MAMBA

from napari_mamba import bundles, models
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.errors import InputError
from napari_mamba.models.segmentation.adapters.sam import RelativeAttention, SamBlock
from napari_mamba.models.segmentation.adapters.tp_mamba import ScanAdapter
from napari_mamba.volume import Volume


@torch.no_grad()
def test_attention_knows_how_far_apart_tokens_are() -> None:
    torch.manual_seed(0)
    layer, x = RelativeAttention(8, heads=2, side=3, rank=2), torch.randn(1, 3, 3, 8)
    for parameter in layer.parameters():
        parameter.normal_(std=0.5)
    expected = torch.empty(9, 8)
    q, k, v = (t[0].view(9, 2, 4) for t in layer.qkv(x.flatten(1, 2)))
    for head in range(2):
        logits = torch.empty(9, 9)
        for a in range(9):
            for b in range(9):
                down, right = a // 3 - b // 3, a % 3 - b % 3
                place = layer.rel_pos_h[down + 2] + layer.rel_pos_w[right + 2]
                logits[a, b] = q[a, head] @ k[b, head] / math.sqrt(4) + q[a, head] @ place
        expected[:, 4 * head : 4 * head + 4] = logits.softmax(-1) @ v[:, head]
    torch.testing.assert_close(layer(x)[0].flatten(0, 1), layer.proj(expected))


@torch.no_grad()
def test_windows_do_not_meet() -> None:
    torch.manual_seed(0)
    block, x = SamBlock(8, 2, 4, window=2, side=4, rank=2), torch.randn(1, 3, 5, 8)
    other = x.clone()
    other[0, 0, 4] += 1
    changed = (block(other) - block(x)).abs().amax(-1)[0] > 0
    assert changed.nonzero().tolist() == [[0, 4], [1, 4]]


@pytest.mark.parametrize("mode", [0, 1, 2])
@torch.no_grad()
def test_what_a_sequence_is(mode: int) -> None:
    torch.manual_seed(0)
    adapter, x = ScanAdapter(16, mode), torch.randn(2, 3, 4, 5, 16)
    torch.nn.init.normal_(adapter.up.weight)
    other = x.clone()
    other[0, 1, 2, 3] += 1
    changed = (adapter(other) - adapter(x)).abs().amax(-1) > 0
    expected = torch.zeros(2, 3, 4, 5, dtype=torch.bool)  # all that comes after it in its sequence
    if mode == 2:
        expected[0, 1, 2, 3:] = expected[0, 2, 2] = True
    else:
        expected[0, 1, 2, 3:] = expected[0, 1, 3] = True
        expected[0, 2] = mode == 0
    assert torch.equal(changed, expected)


def test_keys_tell_all_but_the_mode() -> None:
    found = models.identify(models.create("tp_mamba", **TP_MAMBA).state_dict())
    assert (found.name, found.ambiguous) == ("tp_mamba", ("mode",))
    assert "each slice" in found.note
    assert {**found.arguments, "global_attn_indexes": tuple(found.arguments["global_attn_indexes"])} == TP_MAMBA


def test_refusals_are_sentences() -> None:
    with pytest.raises(InputError, match="0, 1 or 2"):
        models.create("tp_mamba", **TP_MAMBA, mode=3)
    for shape in [(1, 2, 16, 16, 2), (1, 1, 16, 12, 2), (1, 1, 16, 16)]:
        with pytest.raises(InputError, match="last axis"):
            models.create("tp_mamba", **TP_MAMBA)(torch.zeros(shape))


def test_sams_encoder_with_adapters_labels_a_volume_as_any_network_does(tmp_path) -> None:
    """From the file of weights to a label map: slices along the last axis of the tile, by a step of the preparation."""
    torch.manual_seed(0)
    network = models.create("tp_mamba", **TP_MAMBA).eval()
    torch.save(network.state_dict(), tmp_path / "sam.pth")
    steps = [{"step": "transpose", "axes": [1, 2, 0]}, {"step": "normalise", "schemes": ["zscore"]}]
    usage = {"channels": ["CT"], "classes": ["background", "liver", "tumour"], "preparation": steps}
    arguments = {"mode": 2, "num_heads": 2}
    path = bundles.import_checkpoint(
        tmp_path / "sam.pth", tmp_path / "tp", tile=(16, 24, 3), arguments=arguments, **usage
    )
    values = np.random.default_rng(0).normal(50, 20, (1, 3, 16, 24)).astype(np.float32)
    volume = Volume(values, np.diag([2.0, 1, 1, 1])[[2, 1, 0, 3]], ("CT",), "mm", "abdomen")
    found = run_to_end(volume, bundles.load(path), RunOptions(device="cpu")).labels
    x = torch.from_numpy((values - values.mean()) / values.std()).permute(0, 2, 3, 1)[None]
    own = models.create("tp_mamba", **{**TP_MAMBA, "mode": 2}).eval()
    own.load_state_dict(network.state_dict())
    with torch.inference_mode():
        expected = own(x).argmax(1)[0].permute(2, 0, 1).numpy()
    assert len(np.unique(expected)) > 1
    assert (found.data[0] == expected).mean() > 0.999
    np.testing.assert_array_equal(found.affine, volume.affine)
