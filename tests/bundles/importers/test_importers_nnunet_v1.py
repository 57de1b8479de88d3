"""nnU-Net v1 folders of nnMamba: plans in pickles, which are never run; v1's order of steps; folds as an ensemble."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_fill_holes
from skimage.transform import resize

from napari_mamba import bundles, models
from napari_mamba.bundles.importers import import_checkpoint, import_nnunet_v1
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

ARGUMENTS = {"in_ch": 2, "channels": 16, "blocks": 1, "number_classes": 3}


def network(generation="first", seed=0):
    torch.manual_seed(seed)
    built = models.create("nnmamba", generation=generation, **ARGUMENTS)
    for module in built.modules():  # statistics and shifts such as training leaves, so that no output is all zero
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.normal_(module.bias, std=0.5)
    return built.eval()


def plans():
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [3, 4, 4],
        "patch_size": np.array([16, 32, 32]),
        "median_patient_size_in_voxels": np.array([30, 60, 60]),
        "current_spacing": np.array([2.0, 1.0, 1.0]),
        "original_spacing": np.array([2.0, 1.0, 1.0]),
        "do_dummy_2D_data_aug": False,
        "pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[3, 3, 3]] * 5,
    }
    intensities = OrderedDict(
        {
            0: OrderedDict(
                {
                    "mean": np.float32(60.5),
                    "sd": np.float32(20.0),
                    "percentile_00_5": np.float64(-50.0),
                    "percentile_99_5": np.float64(180.0),
                    "local_props": OrderedDict(),
                }
            )
        }
    )
    return {
        "num_stages": 1,
        "num_modalities": 2,
        "modalities": {0: "CT", 1: "T1"},
        "normalization_schemes": OrderedDict({0: "CT", 1: "nonCT"}),
        "dataset_properties": {
            "all_classes": [1, 2],
            "modalities": {0: "CT", 1: "T1"},
            "intensityproperties": intensities,
        },
        "use_mask_for_norm": OrderedDict({0: False, 1: np.bool_(True)}),
        "keep_only_largest_region": None,
        "min_region_size_per_class": None,
        "num_classes": 2,
        "all_classes": [1, 2],
        "base_num_features": 32,
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": {0: stage},
        "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": 2,
    }


def results(root, folds=("fold_0",), trainer="nnUNetTrainer", generation="first", changes=None, extra=None):
    """What `nnUNet_train` leaves: weights, a pickle beside them, plans.pkl above."""
    folder = root / "nnUNet" / "3d_fullres" / "Task017_Meningioma" / f"{trainer}__nnUNetPlansv2.1"
    plan = {**plans(), **(changes or {})}
    for seed, fold in enumerate(folds):
        (folder / fold).mkdir(parents=True)
        file = folder / fold / "model_final_checkpoint.model"
        checkpoint = {
            "epoch": 200,
            "state_dict": network(generation, seed).state_dict(),
            "optimizer_state_dict": {"state": {}, "param_groups": []},
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(0.5)], [np.float32(0.25)], [], []),
            "best_stuff": (3, np.float64(0.5), np.float64(0.5)),
        }
        torch.save(checkpoint, file, _use_new_zipfile_serialization=seed > 0)
        info = OrderedDict()
        info["init"] = ("/data/plans.pkl", seed, "/out", "/data", True, 0, True, False, True)
        info["name"] = trainer
        info["class"] = f"<class 'nnunet.training.network_training.{trainer}.{trainer}'>"
        info["plans"] = plan
        if extra is not None:
            info["extra"] = extra
        file.with_name(file.name + ".pkl").write_bytes(pickle.dumps(info))
    (folder / "plans.pkl").write_bytes(pickle.dumps(plan))
    (folder / "postprocessing.json").write_text("{}")
    return folder


def image():
    random = np.random.default_rng(0)
    data = np.zeros((2, 20, 44, 40))
    data[:, 2:18, 4:40, 6:36] = random.normal(60, 30, (2, 16, 36, 30))
    return Volume(data, affine=np.diag([1.5, 1.0, 0.8, 1]), channel_names=("CT", "T1"))


@pytest.mark.parametrize("generation", ["first", "nnunet"])
def test_what_v1_wrote_arrives_in_the_bundle(tmp_path, generation):
    if generation == "nnunet":
        wide = {**ARGUMENTS, "channels": 32, "blocks": 2}  # its side outputs were written for this width alone
        weights = models.create("nnmamba", generation=generation, deep_supervision=True, **wide).state_dict()
    folder = results(tmp_path, ("fold_0", "fold_1", "all"))
    if generation == "nnunet":
        for fold in ("fold_0", "fold_1"):
            torch.save({"state_dict": weights}, folder / fold / "model_final_checkpoint.model")
    bundle = bundles.load(import_checkpoint(folder, tmp_path / "out"))
    assert bundle.network.arguments["generation"] == generation
    assert len(bundle.weights) == 2
    assert bundle.name == "meningioma-nnunetplansv2.1"
    assert [(c.name, c.modality) for c in bundle.channels] == [("CT", "CT"), ("T1", "MR")]
    assert [(c.index, c.name) for c in bundle.classes] == [(0, "background"), (1, "class 1"), (2, "class 2")]
    assert (bundle.tile.size, bundle.tile.mirror_axes, bundle.tile.divisor) == ((16, 32, 32), (0, 1, 2), (16, 16, 16))
    assert [step["step"] for step in bundle.preparation] == ["crop_nonzero", "resample", "normalise"]
    assert bundle.preparation[2]["schemes"] == [
        {"scheme": "ct", "lower": -50.0, "upper": 180.0, "mean": 60.5, "std": 20.0},
        {"scheme": "zscore", "use_mask": True},
    ]


def test_folds_compute_what_they_did_and_names_can_be_given(tmp_path):
    folder = results(tmp_path, ("fold_0", "fold_1"))
    names = ["background", "tumour", "oedema"]
    path = import_checkpoint(folder.parent, tmp_path / "out", classes=names, folds=[1, 0])
    bundle = bundles.load(path)
    assert [c.name for c in bundle.classes] == names
    x = torch.randn(1, 2, 16, 32, 32)
    with torch.inference_mode():
        for seed, ours in zip((1, 0), bundle.networks(), strict=True):
            torch.testing.assert_close(ours(x), network(seed=seed)(x), rtol=0, atol=0)


def test_the_preparation_is_v1s_resample_before_normalise(tmp_path):
    volume = image()
    bundle = bundles.load(import_checkpoint(results(tmp_path), tmp_path / "out"))
    found = prepare(volume, bundle.preparation).data
    cropped = volume.data[:, 2:18, 4:40, 6:36].astype(np.float32).astype(float)
    shape = tuple(np.round(np.array([1.5, 1.0, 0.8]) / [2.0, 1.0, 1.0] * cropped.shape[1:]).astype(int))
    fine = np.stack([resize(one, shape, 3, mode="edge", anti_aliasing=False) for one in cropped])
    inside = binary_fill_holes((cropped != 0).any(0)).astype(float)
    mask = resize(inside, shape, 1, mode="edge", anti_aliasing=False) >= 0.5
    fine[0] = (np.clip(fine[0], -50, 180) - 60.5) / 20
    fine[1][mask] = (fine[1][mask] - fine[1][mask].mean()) / (fine[1][mask].std() + 1e-8)
    fine[1][~mask] = 0
    np.testing.assert_allclose(found, fine, atol=2e-4)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerV2_MEN_mamba"])
def test_v1_averages_probabilities_where_its_trainer_does(tmp_path, trainer):
    folder = results(tmp_path, ("fold_0", "fold_1"), trainer=trainer)
    bundle = bundles.load(import_checkpoint(folder, tmp_path / "out"))
    random = np.random.default_rng(1)
    volume = Volume(random.normal(60, 30, (2, 16, 32, 32)), affine=np.diag([2.0, 1, 1, 1]), channel_names=("CT", "T1"))
    result = run_to_end(volume, bundle, RunOptions(device="cpu", precision="float32", mirror=False, probabilities=True))
    x = torch.from_numpy(prepare(volume, bundle.preparation).data)[None]
    with torch.inference_mode():
        outputs = [network(seed=seed)(x) for seed in (0, 1)]
    softmax = trainer != "nnUNetTrainer"
    mean = sum(one.softmax(1) if softmax else one for one in outputs) / 2
    expected = (mean if softmax else mean.softmax(1))[0].numpy()
    np.testing.assert_allclose(result.extra["probabilities"].data, expected, atol=1e-4)
    np.testing.assert_array_equal(result.labels.data[0], mean[0].argmax(0))


def test_code_in_a_pickle_is_named_and_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    folder = results(tmp_path, extra=Evil())
    with pytest.raises(BundleError, match=f"{os.name}.system"):
        import_checkpoint(folder, tmp_path / "out")
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"normalization_schemes": {0: "CT2", 1: "nonCT"}}, "'CT2'"),
        ({"use_mask_for_norm": {0: True, 1: True}}, "within a mask"),
        ({"plans_per_stage": {}}, "not the description"),
        ({"num_modalities": 1}, "lists 1 input channels"),
        ({"all_classes": [1]}, "2 classes"),
        ({"num_modalities": None}, "not the description"),
    ],
)
def test_plans_that_cannot_be_followed_are_refused(tmp_path, changes, says):
    with pytest.raises(BundleError, match=says) as caught:
        import_nnunet_v1(results(tmp_path, changes=changes), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_half_a_folder_is_refused(tmp_path):
    folder = results(tmp_path, trainer="nnUNetTrainerV2Cascade")
    with pytest.raises(BundleError, match="cascade"):
        import_checkpoint(folder, tmp_path / "out")
    with pytest.raises(BundleError, match="no fold holds model_best"):
        import_checkpoint(folder, tmp_path / "out", checkpoint="model_best.model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="no results of nnU-Net v1"):
        import_nnunet_v1(tmp_path / "empty", tmp_path / "out")
