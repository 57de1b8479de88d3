"""nnU-Net v2 results folders: what their plans say arrives in the bundle, and half a folder is refused."""

import copy
import json
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from napari_mamba import bundles, models
from napari_mamba.bundles.importers import import_checkpoint, import_nnunet
from napari_mamba.errors import BundleError, OutputError

CONFIGURATION = {
    "patch_size": [16, 8, 8],
    "spacing": [3.0, 1.0, 0.5],
    "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
    "use_mask_for_norm": [False, True],
    "UNet_base_num_features": 4,
    "unet_max_num_features": 6,
    "n_conv_per_stage_encoder": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3]],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
PLANS = {
    "dataset_name": "Dataset007_Liver",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [2, 0, 1],
    "transpose_backward": [1, 2, 0],
    "configurations": {
        "3d_fullres": CONFIGURATION,
        "3d_small": {"inherits_from": "3d_fullres", "spacing": [6.0, 2.0, 1.0]},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "2d": CONFIGURATION
        | {
            "patch_size": [8, 8],
            "spacing": [1.0, 0.5],
            "pool_op_kernel_sizes": [[1, 1], [2, 2]],
            "conv_kernel_sizes": [[3, 3], [3, 3]],
        },
    },
    "foreground_intensity_properties_per_channel": {
        "0": {"percentile_00_5": -50.0, "percentile_99_5": 180.0, "mean": 60.5, "std": 20.0},
        "1": {"percentile_00_5": 0, "percentile_99_5": 9, "mean": 3, "std": 1},
    },
}
DATASET = {
    "channel_names": {"0": "CT", "1": "T1 post"},
    "labels": {"background": 0, "tumour": 2, "liver": 1, "ignore": 3},
    "file_ending": ".nii.gz",
    "licence": "CC-BY 4.0",
}


def network(configuration="3d_fullres", name="umamba_bot", classes=3, seed=0):
    plan = PLANS["configurations"]["2d" if configuration == "2d" else "3d_fullres"]
    torch.manual_seed(seed)
    return models.create(
        name,
        spatial_dims=len(plan["patch_size"]),
        input_channels=2,
        num_classes=classes,
        features_per_stage=[4, 6],
        kernel_sizes=plan["conv_kernel_sizes"],
        strides=plan["pool_op_kernel_sizes"],
        n_conv_per_stage=[1, 1],
        n_conv_per_stage_decoder=[1],
        input_size=plan["patch_size"],
    )


def results(
    root,
    configuration="3d_fullres",
    folds=("0",),
    plans=PLANS,
    dataset=DATASET,
    axes=(0, 1),
    classes=3,
    name="umamba_bot",
):
    """A results folder such as a training leaves, with one checkpoint a fold."""
    folder = root / "Dataset007_Liver" / f"nnUNetTrainerUMambaBot__nnUNetPlans__{configuration}"
    for seed, fold in enumerate(folds):
        (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
        checkpoint = {
            "network_weights": network(configuration, name, classes, seed).state_dict(),
            "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {"plans": plans, "configuration": configuration, "fold": fold, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainerUMambaBot",
            "inference_allowed_mirroring_axes": axes,
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def changed(values, **changes):
    return copy.deepcopy(values) | changes


def with_configuration(**changes):
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_fullres"].update(changes)
    return plans


def test_plan_and_dataset_arrive_in_the_bundle(tmp_path):
    bundle = bundles.load(import_nnunet(results(tmp_path), tmp_path / "out"))
    assert bundle.name == "liver-umambabot-3d_fullres"
    assert [(c.name, c.modality) for c in bundle.channels] == [("CT", "CT"), ("T1 post", "MR")]
    assert [(c.index, c.name) for c in bundle.classes] == [(0, "background"), (1, "liver"), (2, "tumour")]
    assert bundle.activation == "softmax"
    assert bundle.licence == "CC-BY 4.0"
    assert (bundle.tile.size, bundle.tile.overlap, bundle.tile.mirror_axes) == ((16, 8, 8), 0.5, (0, 1))
    assert (bundle.tile.divisor, bundle.tile.fixed) == ((1, 2, 2), False)
    transpose, crop, normalise, resample = bundle.preparation
    assert transpose == {"step": "transpose", "axes": [2, 0, 1]}
    assert crop == {"step": "crop_nonzero"}
    assert normalise["schemes"] == [
        {"scheme": "ct", "lower": -50.0, "upper": 180.0, "mean": 60.5, "std": 20.0},
        {"scheme": "zscore", "use_mask": True},
    ]
    assert resample == {
        "step": "resample",
        "spacing": [3.0, 1.0, 0.5],
        "order": 3,
        "order_z": 0,
        "order_probabilities": 1,
        "anisotropy": "nnunet",
        "file_axes": PLANS["transpose_backward"],
    }
    assert bundle.network.arguments["strides"] == [[1, 1, 1], [1, 2, 2]]


def test_the_networks_compute_what_the_checkpoints_did(tmp_path):
    folder = results(tmp_path, folds=("0", "1", "10", "all"))
    bundle = bundles.load(import_nnunet(folder, tmp_path / "out.zip"))
    assert len(bundle.weights) == 3
    x = torch.randn(1, 2, 16, 8, 8)
    with torch.inference_mode():
        for seed, ours in enumerate(bundle.networks()):
            torch.testing.assert_close(ours(x), network(seed=seed).eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("asked", "seeds"), [(None, [0, 1]), (1, [1]), ("all", [2]), ([1, 0], [1, 0]), (["0", "0"], [0])]
)
def test_folds(tmp_path, asked, seeds):
    folder = results(tmp_path, folds=("0", "1", "all"))
    bundle = bundles.load(import_nnunet(folder, tmp_path / "out", folds=asked))
    for seed, weights in zip(seeds, bundle.state_dicts(), strict=True):
        key = "decoder.seg_layers.0.weight"
        torch.testing.assert_close(weights[key], network(seed=seed).state_dict()[key])


def test_fold_all_alone_is_taken(tmp_path):
    assert len(bundles.load(import_nnunet(results(tmp_path, folds=("all",)), tmp_path / "out")).weights) == 1


@pytest.mark.parametrize("place", ["configuration", "dataset", "results", "fold"])
def test_where_one_may_point(tmp_path, place):
    folder = results(tmp_path / "results")
    at = {"configuration": folder, "dataset": folder.parent, "results": folder.parent.parent, "fold": folder / "fold_0"}
    assert bundles.load(import_checkpoint(at[place], tmp_path / "out")).name == "liver-umambabot-3d_fullres"


def test_several_configurations_have_to_be_told_apart(tmp_path):
    root = results(tmp_path / "r").parent
    results(tmp_path / "r", "2d")
    with pytest.raises(BundleError, match=r"several trainings.*__2d.*__3d_fullres"):
        import_nnunet(root, tmp_path / "out")
    bundle = bundles.load(import_nnunet(root, tmp_path / "out", configuration="2d"))
    assert bundle.tile.size == (8, 8)
    assert bundle.preparation[-1]["spacing"] == [None, 1.0, 0.5]
    with pytest.raises(BundleError, match="'3d_lowres'"):
        import_nnunet(root, tmp_path / "out2", configuration="3d_lowres")


def test_a_configuration_inherits(tmp_path):
    bundle = bundles.load(import_nnunet(results(tmp_path, "3d_small"), tmp_path / "out"))
    assert bundle.preparation[-1]["spacing"] == [6.0, 2.0, 1.0]
    assert bundle.tile.size == (16, 8, 8)


def test_regions_are_sigmoid_in_their_order(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    dataset = changed(DATASET, labels=labels, regions_class_order=[1, 2, 3])
    bundle = bundles.load(import_nnunet(results(tmp_path, dataset=dataset), tmp_path / "out"))
    assert bundle.activation == "sigmoid"
    assert [(c.index, c.name) for c in bundle.classes] == [(1, "whole"), (2, "core"), (3, "enhancing")]


def test_weights_whose_shapes_hang_on_the_tile_say_so(tmp_path):
    plans = with_configuration(patch_size=[2, 4, 2], UNet_base_num_features=4)
    folder = results(tmp_path, plans=plans)
    arguments = {
        "spatial_dims": 3,
        "input_channels": 2,
        "num_classes": 3,
        "features_per_stage": [4, 6],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2]],
        "n_conv_per_stage": 1,
        "n_conv_per_stage_decoder": 1,
        "input_size": [2, 4, 2],
    }
    file = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = {"network_weights": models.create("umamba_enc", **arguments).state_dict()}
    torch.save(checkpoint, file)  # an old checkpoint: neither trainer nor mirroring
    bundle = bundles.load(import_nnunet(folder, tmp_path / "out"))
    assert bundle.tile.fixed
    assert bundle.tile.mirror_axes == ()
    assert len(bundle.networks()) == 1


def test_plans_of_later_nnunets(tmp_path):
    plans = with_configuration()
    del plans["configurations"]["3d_fullres"]["pool_op_kernel_sizes"]
    plans["configurations"]["3d_fullres"]["architecture"] = {"arch_kwargs": {"strides": [[1, 1, 1], [1, 2, 2]]}}
    assert bundles.load(import_nnunet(results(tmp_path, plans=plans), tmp_path / "out")).tile.divisor == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"plans": with_configuration(normalization_schemes=["CTNormalization", "MyOwn"])}, "'MyOwn'"),
        ({"plans": with_configuration(normalization_schemes=["CTNormalization"])}, "1 channels, but"),
        ({"plans": with_configuration(resampling_fn_data="my_resampling")}, "my_resampling"),
        ({"plans": with_configuration(pool_op_kernel_sizes=[[1, 1], [2, 2]])}, "strides"),
        ({"plans": with_configuration(spacing=None)}, "'spacing'"),
        ({"plans": with_configuration(inherits_from="3d_fullres")}, "inherits from itself"),
        ({"plans": changed(PLANS, configurations={"2d": {}})}, "no configuration '3d_fullres'"),
        ({"plans": changed(PLANS, foreground_intensity_properties_per_channel={})}, "percentile_00_5"),
        ({"plans": changed(PLANS, transpose_forward=[0, 0, 1])}, "transpose_forward"),
        ({"plans": [1, 2]}, "not a JSON object"),
        ({"configuration": "3d_cascade_fullres"}, "cascade"),
        ({"dataset": changed(DATASET, labels={"liver": 1})}, "background"),
        ({"dataset": changed(DATASET, labels={"background": 0, "liver": 1, "x": 5})}, "without gaps"),
        ({"dataset": changed(DATASET, labels={"background": 0, "liver": 1})}, "lists 2 classes, but its network has 3"),
        ({"dataset": changed(DATASET, labels={"background": 0, "a": [1, 2], "b": [2]})}, "regions_class_order"),
        ({"dataset": changed(DATASET, channel_names={"0": "CT"})}, "names 1"),
        ({"dataset": changed(DATASET, channel_names={"1": "CT"})}, "input channels"),
    ],
)
def test_plans_that_cannot_be_followed_are_refused(tmp_path, changes, says):
    folder = results(tmp_path, **changes)
    with pytest.raises(BundleError, match=says) as caught:
        import_nnunet(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dataset007_Liver"]


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("plans.json", "lacks plans.json"),
        ("dataset.json", "lacks dataset.json"),
        ("fold_0", "no fold holds checkpoint_final.pth"),
        ("fold_0/checkpoint_final.pth", "checkpoint_best.pth"),
    ],
)
def test_half_a_folder_is_refused(tmp_path, lost, says):
    folder = results(tmp_path)
    shutil.copy(folder / "fold_0/checkpoint_final.pth", folder / "fold_0/checkpoint_best.pth")
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BundleError, match=says):
        import_nnunet(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_fold_that_is_not_there(tmp_path):
    folder = results(tmp_path, folds=("0", "3"))
    with pytest.raises(BundleError, match=r"of the fold 2; there are: 0, 3"):
        import_nnunet(folder, tmp_path / "out", folds=[0, 2])
    with pytest.raises(BundleError, match="no such"):
        import_nnunet(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="no results"):
        import_nnunet(tmp_path / "empty", tmp_path / "out")


def test_a_folder_with_code_in_its_checkpoint(tmp_path):
    folder = results(tmp_path)
    file = folder / "fold_0" / "checkpoint_final.pth"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    torch.save(torch.load(file, weights_only=False) | {"logging": Evil()}, file)
    with pytest.raises(BundleError, match=f"{os.name}.system"):
        import_nnunet(folder, tmp_path / "out")
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "out").exists()


def test_a_network_that_is_not_known(tmp_path):
    folder = results(tmp_path)
    torch.save({"network_weights": torch.nn.Linear(3, 3).state_dict()}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(BundleError, match="none of the networks"):
        import_nnunet(folder, tmp_path / "out")
    torch.save({"weights": 1}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(BundleError, match="network_weights"):
        import_nnunet(folder, tmp_path / "out")


def test_a_destination_is_not_overwritten_unasked(tmp_path):
    folder = results(tmp_path)
    import_nnunet(folder, tmp_path / "out")
    with pytest.raises(OutputError, match="is already there"):
        import_nnunet(folder, tmp_path / "out")
    import_nnunet(folder, tmp_path / "out", overwrite=True, name="other")
    assert bundles.load(tmp_path / "out").name == "other"


def test_without_a_destination_it_goes_to_the_users_bundles(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path / "mine"))
    import_checkpoint(results(tmp_path))
    assert bundles.load("liver-umambabot-3d_fullres").task == "segmentation"


@pytest.mark.parametrize("zipped", [False, True])
def test_an_import_tells_how_far_it_is(tmp_path, zipped):
    place = results(tmp_path / "results", folds=("0", "1", "2"))
    if zipped:
        place = shutil.make_archive(str(tmp_path / "model"), "zip", place.parent.parent)
    told = []
    import_checkpoint(place, tmp_path / "out", on_progress=lambda *one: told.append(one))
    shares = [share for _, share in told]
    assert shares == sorted(shares), "it never falls"
    assert (shares[0], shares[-1]) == (0, pytest.approx(1))
    words = list(dict.fromkeys(what for what, _ in told))
    wanted = ["Reading the weights", "Checking the weights", "Computing check sums", "Writing the bundle"]
    assert words == ["Unpacking"] * zipped + wanted
    assert max(later - earlier for earlier, later in pairwise(shares)) < 0.35
