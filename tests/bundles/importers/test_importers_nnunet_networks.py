"""nnU-Net v2 folders of LightM-UNet, LKM-UNet and both Swin-UMambas, as their trainers write them, and their zips."""

import json
import zipfile

import numpy as np
import pytest
import torch

from napari_mamba import bundles, models
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

CONVOLUTIONS = {"features_per_stage": [4, 8], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "kernel_sizes": 3}
NETWORKS = {
    "LightMUNet-2d": ("lightm_unet", {"spatial_dims": 2, "init_filters": 8, "in_channels": 2, "out_channels": 3}),
    "LightMUNet-3d": ("lightm_unet", {"spatial_dims": 3, "init_filters": 8, "in_channels": 2, "out_channels": 3}),
    "LKMUNet-2d": (
        "lkm_unet",
        {"spatial_dims": 2, "input_channels": 2, "num_classes": 3, "strides": [[1, 1], [2, 2]], **CONVOLUTIONS},
    ),
    "LKMUNet-3d": (
        "lkm_unet",
        {"spatial_dims": 3, "input_channels": 2, "num_classes": 3, "strides": [[1, 1, 1], [2, 2, 2]], **CONVOLUTIONS},
    ),
    "SwinUMamba-2d": (
        "swin_umamba",
        {"in_chans": 2, "out_chans": 3, "feat_size": [4, 4, 8, 16, 32], "hidden_size": 32, "deep_supervision": True},
    ),
    "SwinUMambaD-2d": (
        "swin_umamba_d",
        {
            "vss_args": {"in_chans": 2, "patch_size": 4, "depths": [1, 1, 1, 1], "dims": [4, 8, 16, 32]},
            "decoder_args": {"num_classes": 3, "deep_supervision": True, "features_per_stage": [4, 8, 16, 32]},
        },
    ),
}


def network(kind, seed=0, **changes):
    torch.manual_seed(seed)
    name, arguments = NETWORKS[kind]
    built = models.create(name, **arguments)
    return built.eval()


def patch(kind):
    side = 32 if "Swin" in kind else 16
    return [side] * (2 if kind.endswith("2d") else 3)


def results(root, kind, folds=("0", "1")):
    """What a training of nnU-Net 2.1.1 with this network's trainer leaves, with folds of different weights."""
    trainer, _, configuration = kind.partition("-")
    configuration = "2d" if configuration == "2d" else "3d_fullres"
    folder = root / "Dataset017_Abdomen" / f"nnUNetTrainer{trainer}__nnUNetPlans__{configuration}"
    size = patch(kind)
    plans = {
        "dataset_name": "Dataset017_Abdomen",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            configuration: {
                "patch_size": size,
                "spacing": [1.0] * len(size),
                "normalization_schemes": ["ZScoreNormalization", "ZScoreNormalization"],
                "use_mask_for_norm": [False, False],
                "pool_op_kernel_sizes": [[1] * len(size), [2] * len(size)],
                "conv_kernel_sizes": [[3] * len(size)] * 2,
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {
                    "is_seg": False,
                    "order": 1,
                    "order_z": 0,
                    "force_separate_z": None,
                },
            }
        },
        "foreground_intensity_properties_per_channel": {},
    }
    dataset = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "file_ending": ".nii.gz",
    }
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}" / "validation").mkdir(parents=True)
        (folder / f"fold_{fold}" / "progress.png").write_bytes(b"png")
        (folder / f"fold_{fold}" / "validation" / "summary.json").write_text("{}")
        checkpoint = {
            "network_weights": network(kind, seed).state_dict(),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float32(0.5)], "epoch_end_timestamps": [1.0]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {"plans": plans, "configuration": configuration, "fold": fold, "dataset_json": dataset},
            "trainer_name": f"nnUNetTrainer{trainer}",
            "inference_allowed_mirroring_axes": tuple(range(len(size))),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "dataset_fingerprint.json").write_text("{}")
    return folder


def exported(folder, path):
    """A zip as `nnUNetv2_export_model_to_zip` writes it: names relative to the folder of all results."""
    root = folder.parent.parent
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root))
    return path


@pytest.mark.parametrize("kind", NETWORKS)
def test_folds_become_an_ensemble_that_runs(tmp_path, kind):
    bundle = bundles.load(import_checkpoint(results(tmp_path, kind), tmp_path / "out"))
    assert bundle.network.name == NETWORKS[kind][0]
    assert bundle.name.startswith(f"abdomen-{kind.partition('-')[0].lower()}-")
    assert bundle.tile.size == tuple(patch(kind))
    assert all(size % step == 0 for size, step in zip(bundle.tile.size, bundle.tile.divisor, strict=True))
    x = torch.randn(1, 2, *patch(kind))
    with torch.inference_mode():
        for seed, ours in enumerate(bundle.networks()):
            theirs = network(kind, seed)(x)
            theirs = theirs[0] if isinstance(theirs, list) else theirs
            torch.testing.assert_close(ours(x), theirs, rtol=0, atol=0)
    if kind.endswith("2d"):
        volume = Volume(np.random.default_rng(0).random((2, 2, 33, 40)), affine=np.eye(4), channel_names=("T1", "T2"))
        result = run_to_end(volume, bundle, RunOptions(device="cpu", precision="float32", mirror=False))
        assert result.labels.data.shape == (1, 2, 33, 40)


@pytest.mark.parametrize("kind", ["LightMUNet-2d", "LKMUNet-3d"])
def test_an_exported_zip_is_its_folder(tmp_path, kind):
    folder = results(tmp_path, kind)
    one = bundles.load(import_checkpoint(folder, tmp_path / "folder"))
    two = bundles.load(import_checkpoint(exported(folder, tmp_path / "model.zip"), tmp_path / "zip"))
    assert two.sha256 == one.sha256
    assert (two.network, two.tile, two.preparation, two.name) == (one.network, one.tile, one.preparation, one.name)
    alone = bundles.load(import_checkpoint(tmp_path / "model.zip", tmp_path / "alone", folds=1))
    assert len(alone.weights) == 1


def test_a_zip_that_leads_elsewhere_is_refused(tmp_path):
    path = exported(results(tmp_path, "LightMUNet-2d"), tmp_path / "model.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.json", "{}")
    with pytest.raises(BundleError, match="leads out of the zip"):
        import_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path.parent / "outside.json").exists()


def test_errors_speak_of_the_zip_not_of_where_it_was_unpacked(tmp_path):
    folder = results(tmp_path, "LightMUNet-2d")
    (folder / "dataset.json").unlink()
    with pytest.raises(BundleError, match=r"model\.zip.*dataset\.json"):
        import_checkpoint(exported(folder, tmp_path / "model.zip"), tmp_path / "out")


def test_a_plan_of_other_weights_is_refused(tmp_path):
    folder = results(tmp_path, "LightMUNet-2d")
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["patch_size"] = [20, 20]
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleError, match="multiples of 8"):
        import_checkpoint(folder, tmp_path / "out")
