"""MONAI bundles of networks known here: prepared as MONAI's own transforms prepare, and no expression is run."""

import json
import shutil
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from napari_mamba import bundles, io, models
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError

ARGUMENTS = {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 3}
ORIENTED = [
    {"_target_": "LoadImaged", "keys": "@image_key"},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
]
TYPED = {"_target_": "EnsureTyped", "keys": "@image_key"}
NORMALISED = {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True, "channel_wise": True}
METADATA = {
    "version": "0.3.1",
    "name": "Abdomen LightM-UNet",
    "task": "Abdominal organs on CT",
    "description": "A toy",
    "authors": "somebody",
    "data_source": "made up",
    "intended_use": "An example",
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "modality": "CT",
                "num_channels": 1,
                "spatial_shape": [16, 16, 16],
                "channel_def": {"0": "CT"},
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "num_channels": 3,
                "channel_def": {"0": "background", "1": "liver", "2": "spleen"},
            }
        },
    },
}


def inference(transforms):
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "image_key": "image",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "window": [16, 24, 16],
        "network_def": {"_target_": "scripts.LightMUNet", **ARGUMENTS},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [*ORIENTED, *transforms, TYPED]},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in glob.glob('*.nii.gz')]"},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": "@window",
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
    }


def network():
    torch.manual_seed(0)
    return models.create("lightm_unet", **ARGUMENTS).eval()


def bundle_folder(root, transforms=(NORMALISED,), metadata=METADATA, changes=None):
    folder = root / "abdomen_lightm_unet"
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps({**inference(transforms), **(changes or {})}))
    (folder / "docs" / "README.md").write_text("# A toy")
    torch.save(network().state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture
def scan(tmp_path):
    random = np.random.default_rng(0)
    data = random.normal(50, 100, (30, 22, 26)).astype(np.float32)
    data[:3] = 0
    affine = np.array([[-1.5, 0, 0, 10], [0, 0, 1.2, -5], [0, -2.0, 0, 7], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


SPACED = {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.5, 2.0, 1.2], "mode": "bilinear"}
RANGED = {
    "_target_": "ScaleIntensityRanged",
    "keys": "@image_key",
    "a_min": -57,
    "a_max": 164,
    "b_min": -1.0,
    "b_max": 1.0,
    "clip": True,
}


@pytest.mark.parametrize(
    "transforms",
    [
        [NORMALISED],
        [{**NORMALISED, "nonzero": False}],
        [RANGED],
        [{**RANGED, "clip": False, "b_min": 0.0}],
        [{"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0}],
        [{"_target_": "NormalizeIntensityd", "keys": "@image_key", "subtrahend": 40.0, "divisor": 20.0}],
        [{**SPACED, "_disabled_": True}, RANGED],
        [{"_target_": "Resized", "keys": "@image_key", "spatial_size": [16, -1, 40], "mode": "trilinear"}, RANGED],
        [SPACED, RANGED],
    ],
    ids=lambda steps: "+".join(step["_target_"] for step in steps),
)
def test_volumes_are_prepared_as_monai_prepares_them(tmp_path, scan, transforms):
    folder = bundle_folder(tmp_path, transforms)
    bundle = bundles.load(import_checkpoint(folder, tmp_path / "out"))
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    theirs = parser.get_parsed_content("preprocessing")({"image": str(scan)})["image"].numpy()
    ours = prepare(io.read(scan), bundle.preparation).data
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_what_the_bundle_says_arrives(tmp_path, scan):
    bundle = bundles.load(import_checkpoint(bundle_folder(tmp_path), tmp_path / "out"))
    assert (bundle.name, bundle.version, bundle.task) == ("abdomen-lightm-unet", "0.3.1", "segmentation")
    assert [(c.name, c.modality) for c in bundle.channels] == [("CT", "CT")]
    assert [(c.index, c.name) for c in bundle.classes] == [(0, "background"), (1, "liver"), (2, "spleen")]
    assert (bundle.tile.size, bundle.tile.overlap, bundle.activation) == ((16, 24, 16), 0.5, "softmax")
    x = torch.randn(1, 1, 16, 24, 16)
    with torch.inference_mode():
        torch.testing.assert_close(bundle.networks()[0](x), network()(x), rtol=0, atol=0)
    result = run_to_end(io.read(scan), bundle, RunOptions(device="cpu", precision="float32"))
    assert result.labels.data.shape[1:] == (26, 22, 30)


def test_a_zip_of_it(tmp_path):
    folder = bundle_folder(tmp_path)
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(tmp_path))
    one = bundles.load(import_checkpoint(folder, tmp_path / "one"))
    assert bundles.load(import_checkpoint(tmp_path / "bundle.zip", tmp_path / "two")).sha256 == one.sha256


@pytest.mark.parametrize(
    ("changes", "said", "says"),
    [
        (
            {"window": "$[16] * 3"},
            {"tile": (16, 16, 16), "preparation": []},
            r"'inferer::roi_size' is the expression '\$\[16\] \* 3'",
        ),
        ({"image_key": "$str('image')"}, {"preparation": []}, r"is the expression .\$str"),
        ({"preprocessing": "$make_transforms()"}, {"preparation": []}, r"'preprocessing' is the expression"),
        ({"preprocessing": "@nowhere"}, {"preparation": []}, "refers to '@nowhere'"),
        ({"window": "@window"}, {"tile": (16, 16, 16)}, "refers to itself|refers to"),
        ({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": "%other.json"}}, {}, "refers to the file"),
    ],
)
def test_expressions_are_named_and_never_run(tmp_path, changes, said, says):
    folder = bundle_folder(tmp_path, changes=changes)
    with pytest.raises(BundleError, match=says) as caught:
        import_checkpoint(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    if "preparation" in said and "tile" not in said:
        path = import_checkpoint(folder, tmp_path / "out", **said)
        assert bundles.load(path).preparation == ()


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        ({"_target_": "RandFlipd", "keys": "image"}, "RandFlipd"),
        ({"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}, "CropForegroundd"),
        ({"_target_": "Resized", "keys": "image", "spatial_size": [8, 8, 8], "mode": "area"}, "'area'"),
        ({"_target_": "Spacingd", "keys": "image", "pixdim": [1, 1, 1], "mode": 5}, "mode 5"),
        ({"_target_": "ScaleIntensityd", "keys": "image", "factor": 0.1}, "factor"),
    ],
)
def test_transforms_without_a_counterpart_are_named(tmp_path, transform, says):
    with pytest.raises(BundleError, match=says):
        import_checkpoint(bundle_folder(tmp_path, [transform]), tmp_path / "out")


def test_half_a_bundle(tmp_path):
    folder = bundle_folder(tmp_path, metadata={**METADATA, "network_data_format": {}})
    with pytest.raises(BundleError, match="channel_def"):
        import_checkpoint(folder, tmp_path / "out")
    names = {"channels": ["CT"], "classes": ["background", "a", "b"]}
    assert bundles.load(import_checkpoint(folder, tmp_path / "out", **names)).classes[2].name == "b"
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "models" / "model.pt")
    with pytest.raises(BundleError, match="none of the networks"):
        import_checkpoint(folder, tmp_path / "other")
    shutil.rmtree(folder / "models")
    with pytest.raises(BundleError, match=r"lacks model\.pt"):
        import_checkpoint(folder, tmp_path / "other")
