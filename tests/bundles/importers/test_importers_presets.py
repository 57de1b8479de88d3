"""Weights of the published 2D and BraTS networks with their preset: what their authors' test code feeds the network."""

import numpy as np
import pytest
import torch

from napari_mamba import bundles, models
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.bundles.importers.presets import PRESETS
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

FOUR = [1, 1, 1, 1]
LIGHT = {"embed_dim": 32, "depths": [1], "mlp_ratio": 1.2, "upscale": 1}


def built(name, **arguments):
    torch.manual_seed(0)
    return models.create(name, **arguments).eval()


def picture(channels=3, shape=(300, 260)):
    rgb = np.random.default_rng(0).integers(0, 256, (channels, 1, *shape)).astype(np.float32)
    return Volume(rgb, affine=np.eye(4), units="pixel")


def prepared(bundle, volume):
    return prepare(volume, bundle.preparation).data[:, 0]


def torch_resized(image, side, antialias):
    size = (side, side)
    options = {"mode": "bilinear", "antialias": antialias}
    return torch.nn.functional.interpolate(torch.from_numpy(np.ascontiguousarray(image))[None], size, **options)[
        0
    ].numpy()


def test_every_preset_is_of_networks_that_exist_and_makes_a_valid_bundle():
    for preset in PRESETS.values():
        for name in preset.networks:
            assert len(preset.tile) in models.info(name).spatial_dims


def test_lesion_is_vm_unets_own_normalisation(tmp_path):
    network = built("vm_unet", depths=FOUR, depths_decoder=FOUR)
    torch.save({"epoch": 3, "model_state_dict": network.state_dict()}, tmp_path / "best.pth")
    bundle = bundles.load(import_checkpoint(tmp_path / "best.pth", tmp_path / "out", preset="lesion"))
    volume = picture()
    image = np.asarray(volume.data)[:, 0].transpose(1, 2, 0)
    standard = (image - 157.561) / 26.706
    theirs = (standard - standard.min()) / (standard.max() - standard.min()) * 255
    expected = torch_resized(theirs.transpose(2, 0, 1).astype(np.float32), 256, antialias=False)
    np.testing.assert_allclose(prepared(bundle, volume), expected, atol=0.05)
    result = run_to_end(volume, bundle, RunOptions(device="cpu", precision="float32", probabilities=True))
    with torch.inference_mode():
        probability = network(torch.from_numpy(prepared(bundle, volume))[None])[0, 0]
    back = torch.nn.functional.interpolate(probability.logit()[None, None], (300, 260), mode="bilinear")[0, 0].sigmoid()
    np.testing.assert_allclose(result.extra["probabilities"].data[0, 0], back, atol=1e-3)
    assert [(c.index, c.name) for c in bundle.classes] == [(1, "lesion")]


def test_synapse_takes_a_grey_ct_and_lists_its_organs(tmp_path):
    network = built("vm_unet", num_classes=9, depths=FOUR, depths_decoder=FOUR)
    torch.save(network.state_dict(), tmp_path / "best.pth")
    bundle = bundles.load(import_checkpoint(tmp_path / "best.pth", tmp_path / "out", preset="synapse"))
    assert [label.name for label in bundle.classes][5] == "liver"
    ct = Volume(np.full((1, 1, 100, 100), 75.0), affine=np.eye(4))
    np.testing.assert_allclose(prepare(ct, [*bundle.preparation]).data, 0.5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "preset", "arguments", "mean", "std"),
    [
        ("medmamba", "medmamba", {"num_classes": 4, "depths": [1, 1], "dims": [16, 32]}, [0.5] * 3, [0.5] * 3),
        (
            "vmamba",
            "imagenet",
            {"num_classes": 4, "depths": [1, 1], "dims": 16, "forward_type": "v0", "mlp_ratio": 0.0},
            [0.485, 0.456, 0.406],
            [0.229, 0.224, 0.225],
        ),
    ],
)
def test_classifiers_see_what_torchvision_gives(tmp_path, name, preset, arguments, mean, std):
    torch.save({"model": built(name, **arguments).state_dict()}, tmp_path / "net.pth")
    bundle = bundles.load(import_checkpoint(tmp_path / "net.pth", tmp_path / "out", preset=preset))
    assert [label.name for label in bundle.classes] == [f"class {i}" for i in range(4)]
    volume = picture()
    image = torch_resized(np.asarray(volume.data)[:, 0] / 255, 224, antialias=True)
    expected = (image - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(prepared(bundle, volume), expected, atol=1e-4)
    result = run_to_end(volume, bundle, RunOptions(device="cpu", precision="float32"))
    with torch.inference_mode():
        scores = built(name, **arguments)(torch.from_numpy(expected)[None].float())[0].softmax(0)
    np.testing.assert_allclose(list(result.scores.values()), scores, atol=1e-4)


@pytest.mark.parametrize("key", ["params", "params_ema"])
@pytest.mark.parametrize("channels", [1, 3])
def test_basicsr_weights_restore_in_the_images_own_scale(tmp_path, key, channels):
    network = built("mambair", in_chans=channels, **LIGHT)
    torch.save({key: network.state_dict()}, tmp_path / "net_g_latest.pth")
    bundle = bundles.load(import_checkpoint(tmp_path / "net_g_latest.pth", tmp_path / "out", preset="restoration"))
    assert len(bundle.channels) == channels
    volume = picture(channels, (64, 64))
    result = run_to_end(volume, bundle, RunOptions(device="cpu", precision="float32", tile=(64, 64)))
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.asarray(volume.data)[None, :, 0] / 255).float())[0] * 255
    # The run keeps to the range of its input.
    np.testing.assert_allclose(result.image.data[:, 0], expected.clamp(0, 255), atol=2e-2)


def test_averaged_weights_come_first(tmp_path):
    one, other = built("mambair", in_chans=1, **LIGHT), models.create("mambair", in_chans=1, **LIGHT)
    torch.save({"params": other.state_dict(), "params_ema": one.state_dict()}, tmp_path / "net.pth")
    bundle = bundles.load(import_checkpoint(tmp_path / "net.pth", tmp_path / "out", preset="restoration"))
    x = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(bundle.networks()[0](x), one(x))


def test_segmamba_says_its_residual_and_its_labels(tmp_path):
    arguments = {"in_chans": 4, "out_chans": 4, "depths": FOUR, "feat_size": [8, 8, 16, 16], "hidden_size": 16}
    state = {f"module.{key}": value for key, value in built("segmamba", **arguments).state_dict().items()}
    torch.save(state, tmp_path / "final_model.pt")
    with pytest.raises(BundleError, match="say its"):
        import_checkpoint(tmp_path / "final_model.pt", tmp_path / "out", preset="brats2023")
    found = models.identify(state)
    said = dict.fromkeys(found.ambiguous, True)
    path = import_checkpoint(tmp_path / "final_model.pt", tmp_path / "out", preset="brats2023", arguments=said)
    bundle = bundles.load(path)
    assert [c.name for c in bundle.channels] == ["t2w", "t2f", "t1n", "t1c"]
    assert (bundle.tile.size, bundle.tile.mirror_axes) == ((128, 128, 128), (0, 1, 2))


def test_a_choice_goes_before_the_preset_and_a_wrong_preset_is_refused(tmp_path):
    torch.save(built("vm_unet", depths=FOUR, depths_decoder=FOUR).state_dict(), tmp_path / "best.pth")
    path = import_checkpoint(
        tmp_path / "best.pth", tmp_path / "out", preset="lesion", classes=["polyp"], preparation=[], tile=(64, 64)
    )
    bundle = bundles.load(path)
    assert (bundle.classes[0].name, bundle.preparation, bundle.tile.size) == ("polyp", (), (64, 64))
    for preset, says in (("medmamba", "is of medmamba; for vm_unet there is lesion, synapse"), ("x", "no preset")):
        with pytest.raises(BundleError, match=says):
            import_checkpoint(tmp_path / "best.pth", tmp_path / "other", preset=preset)
    with pytest.raises(BundleError, match="or the preset lesion or synapse"):
        import_checkpoint(tmp_path / "best.pth", tmp_path / "other")


def test_a_network_can_be_named_where_its_keys_do_not_tell(tmp_path):
    torch.save(built("vm_unet", depths=FOUR, depths_decoder=FOUR).state_dict(), tmp_path / "best.pth")
    with pytest.raises(BundleError, match="not those of MedMamba"):
        import_checkpoint(tmp_path / "best.pth", tmp_path / "out", network="medmamba")
    with pytest.raises(BundleError, match="no network is called"):
        import_checkpoint(tmp_path / "best.pth", tmp_path / "out", network="resnet")
    path = import_checkpoint(tmp_path / "best.pth", tmp_path / "out", network="vm_unet", preset="lesion")
    assert bundles.load(path).network.name == "vm_unet"


def test_slices_last_as_sam_with_adapters_takes_them(tmp_path):
    small = {"embed_dim": 16, "depth": 4, "num_heads": 2, "img_size": 64, "out_dim": 4, "rank": 2}
    torch.save(built("tp_mamba", num_classes=14, mode=2, **small).state_dict(), tmp_path / "tp.pth")
    with pytest.raises(BundleError, match="say its mode"):
        import_checkpoint(tmp_path / "tp.pth", tmp_path / "out", preset="btcv")
    bundle = bundles.load(
        import_checkpoint(tmp_path / "tp.pth", tmp_path / "out", preset="btcv", arguments={"mode": 2})
    )
    data = np.arange(4 * 6 * 8, dtype=np.float32).reshape(1, 4, 6, 8) - 175
    ready = prepare(Volume(data, affine=np.diag([1.5, 1.5, 1.5, 1.0])[[2, 1, 0, 3]]), bundle.preparation).data
    # RAS, as MONAI's arrays have it: (x, y, z), and -175 to 250 HU as 0 to 1.
    assert ready.shape == (1, 8, 6, 4)
    np.testing.assert_allclose(np.sort(ready.ravel()), np.arange(192) / 425, atol=1e-6)
    assert (len(bundle.classes), bundle.classes[6].name, bundle.network.arguments["mode"]) == (14, "liver", 2)


def test_exposure_sees_a_frame_as_a_whole(tmp_path):
    torch.save(built("fdv_net", n_blocks=1, side=8).state_dict(), tmp_path / "fdv.pth")
    bundle = bundles.load(import_checkpoint(tmp_path / "fdv.pth", tmp_path / "out", preset="exposure"))
    volume = picture(shape=(40, 60))
    theirs = torch_resized(np.asarray(volume.data)[:, 0] / 255, 512, antialias=False)
    np.testing.assert_allclose(prepared(bundle, volume), theirs, atol=1e-5)
    assert [channel.name for channel in bundle.channels] == ["red", "green", "blue"]


def test_adni_scales_percentiles_to_minus_one_and_one():
    steps = PRESETS["adni"].preparation
    volume = Volume(np.random.default_rng(0).gamma(2.0, 100.0, (1, 12, 20, 20)).astype(np.float32), affine=np.eye(4))
    ready = prepare(volume, [*steps[:2]]).data
    values = np.asarray(volume.data)
    low, high = np.percentile(values, (0.1, 99.9))
    middle, half = (low + high) / 2, (high - low) / 2
    np.testing.assert_allclose(ready, ((values - middle) / half).clip(-1, 1), atol=1e-4)
    assert prepare(volume, steps).data.shape == (1, 96, 160, 160)
    assert dict(PRESETS["adni"].arguments) == {"heads": 8}
