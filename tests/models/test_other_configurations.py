"""What the authors' code can be told beside the published configurations: arguments read back, and formulas by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.classification.mamba_nd import MambaND
from napari_mamba.nn.blocks.transformers.mlp import GatedMlp
from napari_mamba.nn.blocks.vmamba import MapBatchNorm
from napari_mamba.nn.mixers.images.multi_mamba import ALL, MultiMamba
from napari_mamba.nn.mixers.images.ss2d_v2 import SS2Dv2
from napari_mamba.nn.xlstm.vil import ViLLayer

LOCAL_VIM = {"img_size": 32, "embed_dim": 16, "depth": 2, "if_abs_pos_embed": True, "final_pool_type": "mean"}
SSM = {"d_state": 4, "d_conv": 3, "expand": 1, "dt_rank": 5, "conv_bias": False, "bias": True}
LOCAL_VMAMBA = {"depths": [1, 1], "dims": [16, 32], "num_classes": 4}
VMAMBA = {"depths": [1, 1], "dims": [16, 24], "num_classes": 4}
UNETR = {"in_channels": 1, "out_channels": 3, "img_size": (32, 32, 32), "feature_size": 4, "hidden_size": 16}
VISION_LSTM = {"dim": 16, "input_shape": [3, 32, 48], "patch_size": 16, "depth": 1}
CLINIX = {"input_channels": 1, "num_classes": 3, "features_per_stage": [16, 32, 32], "kernel_sizes": [[3] * 3] * 3}
CLINIX |= {"strides": [1, 2, 2], "n_conv_per_stage": [1, 2, 1], "n_conv_per_stage_decoder": 2}
EM_NET = {"out_chans": 3, "feat_size": [8, 8, 8, 8], "hidden_size": 8}
TOLD = [
    ("local_vim", {**LOCAL_VIM, "directions": None}),
    ("local_vim", {**LOCAL_VIM, "directions": [["h", "v", "w3"]] * 2, "ssm_cfg": SSM}),
    ("local_vim", {**LOCAL_VIM, "directions": [["h"]] * 2, "img_size": (32, 48)}),
    ("local_vmamba", {**LOCAL_VMAMBA, "directions": None, "ssm_d_state": "auto", "ssm_conv": 1}),
    ("local_vmamba", {**LOCAL_VMAMBA, "directions": [["h", "v"]] * 2, "ssm_dt_rank": 3, "ssm_conv_bias": False}),
    ("mamba_nd_unetr", {**UNETR, "conv_block": False, "res_block": False}),
    ("mamba_nd_unetr", {**UNETR, "norm_name": "batch"}),
    ("vmamba", {**VMAMBA, "forward_type": "v05_noz", "norm_layer": "bn", "gmlp": True, "mlp_ratio": 2.0}),
    ("vmamba", {**VMAMBA, "forward_type": "m0_noz", "ssm_act_layer": "gelu", "ssm_init": "v2"}),
    ("vision_lstm", {**VISION_LSTM, "mode": "features", "pooling": None}),
    ("vision_lstm2", {**VISION_LSTM, "output_shape": [4], "conv_kind": "causal1d", "pooling": "bilateral_avg"}),
    ("vision_lstm2", {**VISION_LSTM, "output_shape": [4], "proj_bias": False, "norm_bias": False}),
    ("mamba_clinix", CLINIX),
    ("vim4path", {"img_size": 64, "embed_dim": 16, "depth": 1, "rms_norm": False, "init_layer_scale": 1.0}),
    ("em_net", {**EM_NET, "in_shpae": (64, 64, 32), "conv_decoder": True, "res_block": False}),
    ("em_net", {**EM_NET, "in_shpae": (32, 64, 32), "fft_nums": [0] * 4, "norm_name": "batch", "ds": True}),
    ("em_net", {**EM_NET, "in_shpae": (64, 64, 32), "fft_nums": [1, 1, 0, 0], "variant": "EMNet_Bot"}),
    ("em_net", {**EM_NET, "in_shpae": (64, 64, 32), "fft_nums": [1, 1, 0, 0], "variant": "EMNet_Conv_Enc"}),
    ("microscopic_mamba", {"num_classes": 0, "depths": [1], "dims": [32]}),
]


@pytest.mark.parametrize(("name", "arguments"), TOLD)
def test_keys_and_shapes_tell_the_arguments_or_they_are_asked_for(name: str, arguments: dict) -> None:
    with torch.device("meta"):
        network = models.create(name, **arguments)
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        found = models.identify(network.state_dict())
        asked = {key: arguments[key] for key in found.ambiguous if key in arguments}
        again = models.create(found.name, **{**found.arguments, **asked})
    assert found.name == name
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes
    told = {key: value for key, value in arguments.items() if key not in found.ambiguous and key in found.arguments}
    assert told == {key: found.arguments[key] for key in told}


@pytest.mark.parametrize("chosen", [0, 5])
def test_the_network_of_localmambas_search_weighs_normalised_scans(chosen: int) -> None:
    torch.manual_seed(0)
    search = MultiMamba(16, None, d_state=4, expand=1)
    one = MultiMamba(16, [ALL[chosen]], d_state=4, expand=1)
    own = {key.replace(f"_{chosen}", "_0"): value for key, value in search.state_dict().items() if key[-2:] != "ts"}
    one.load_state_dict({key: own[key] for key in one.state_dict()})
    with torch.no_grad():
        for mixer in (search, one):
            mixer.out_proj.weight.copy_(torch.eye(16))
        search.multi_scan["weights"].fill_(-1e3)[chosen] = 0
        x = torch.randn(2, 25, 16)
        torch.testing.assert_close(search(x, (5, 5)), F.layer_norm(one(x, (5, 5)), (16,)))


def test_vmamba_scans_rows_then_columns() -> None:
    torch.manual_seed(0)
    mixer = SS2Dv2(4, d_state=2, ssm_ratio=1.0, forward_type="v052dc_noz").double()
    x_proj, dt_proj = mixer.projections()
    A, D = -mixer.A_logs.view(4, 4, 2).exp(), mixer.Ds.view(4, 4)

    def both_ways(rows: torch.Tensor, first: int) -> torch.Tensor:
        total = torch.zeros_like(rows)
        for path, way in ((first, rows), (first + 1, rows.flip(1))):
            h = torch.zeros(len(rows), 4, 2).double()
            for t in range(rows.shape[1]):
                rank, B, C = (way[:, t] @ x_proj[path].T).split([1, 2, 2], -1)
                dt = F.softplus(rank @ dt_proj[path].T + mixer.dt_projs_bias[path])
                h = torch.exp(dt[..., None] * A[path]) * h + (dt * way[:, t])[..., None] * B[:, None]
                total[:, t] += (h * C[:, None]).sum(-1) + D[path] * way[:, t]
        return total

    with torch.no_grad():
        u = torch.randn(1, 3, 5, 4).double()
        down = both_ways(F.layer_norm(u, (4,))[0], 0)
        across = both_ways(F.layer_norm(down, (4,)).transpose(0, 1), 2).transpose(0, 1)
        torch.testing.assert_close(mixer.scan(u)[0], across)


def test_gated_perceptron_and_batch_norm_of_rows() -> None:
    torch.manual_seed(0)
    mlp, norm, x = GatedMlp(3, 5), MapBatchNorm(3), torch.randn(2, 4, 6, 3)
    value, gate = F.linear(x, mlp.fc1.weight, mlp.fc1.bias).split(5, -1)
    torch.testing.assert_close(mlp(x), F.linear(value * F.gelu(gate), mlp.fc2.weight, mlp.fc2.bias))
    normal = (x - x.mean((0, 1, 2))) / torch.sqrt(x.var((0, 1, 2), unbiased=False) + 1e-5)
    torch.testing.assert_close(norm(x), normal)


def test_mamba_nds_layers_that_read_the_same_tokens_are_added() -> None:
    torch.manual_seed(0)
    network = MambaND(img_size=16, patch_size=8, embed_dims=8, num_layers=1, update_interval=2, num_classes=2).eval()
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        tokens = network.backbone["patch_embed"](image).flatten(2).mT + network.backbone.pos_embed
        total = tokens
        for reverse, layer in enumerate(network.backbone["layers"]):
            rows = F.layer_norm(tokens, (8,), layer.norm.weight, layer.norm.bias)
            mixed = layer.mixer(rows.flip(1) if reverse else rows)
            total = total + (mixed.flip(1) if reverse else mixed)
        last = network.backbone["ln2"](network.backbone["ln1"](total).mean(1))
        torch.testing.assert_close(network(image), network.head["fc"](last), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backwards", [False, True])
def test_vision_lstm2s_convolution_along_the_tokens_never_looks_ahead(backwards: bool) -> None:
    torch.manual_seed(0)
    layer = ViLLayer(8, backwards, 2, conv_kind="causal1d").eval()
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        moved = (layer(x, (2, 3)) - layer(changed, (2, 3))).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == ([True] * 4 + [False] * 2 if backwards else [False] * 3 + [True] * 3)


def test_vision_lstm2s_poolings_are_of_the_same_tokens() -> None:
    def build(pooling: str | None) -> torch.nn.Module:
        torch.manual_seed(0)
        return models.create("vision_lstm2", **VISION_LSTM, mode="features", pooling=pooling).eval()

    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        tokens = build(None)(image)
        assert torch.equal(build("to_image")(image), tokens.mT.unflatten(2, (2, 3)))
        assert torch.equal(build("bilateral_flatten")(image), tokens[:, [0, -1]].flatten(1))
        torch.testing.assert_close(build("bilateral_avg")(image), tokens[:, [0, -1]].mean(1))


def test_vision_lstm2_folds_its_patches_to_its_own_rows() -> None:
    """As published: an image of other sides with as many patches is folded to the network's own map."""
    torch.manual_seed(0)
    network = models.create("vision_lstm2", **VISION_LSTM, output_shape=[4]).eval()
    torch.nn.init.zeros_(network.pos_embed.embed)
    image = torch.randn(1, 3, 48, 32)
    patches = image.unfold(2, 16, 16).unfold(3, 16, 16).flatten(2, 3)
    own = patches.unflatten(2, (2, 3)).permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), network(own))
    with pytest.raises(InputError, match="folds its patches to 2 rows, and"):
        network(torch.zeros(1, 3, 48, 48))
