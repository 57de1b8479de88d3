"""What is fuzzed: for each reader, seeds of its format and what is done with a mutated one."""

from __future__ import annotations

import gzip
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz_doors import DOORS
from mutations import mutated, mutated_json

Target = Callable[[np.random.Generator], object]


def _volume():
    from napari_mamba.volume import Volume

    data = np.random.default_rng(0).integers(0, 900, (1, 4, 5, 6)).astype(np.int16)
    return Volume(data, np.diag([3.0, 1, 2, 1]))


def _read(path: Path) -> object:
    from napari_mamba import io

    return np.asarray(io.read(path).data)


def _of_files(folder: Path, names: list[str], unpack: bool = False) -> Target:
    """Files of one format, written here; gzip's content is changed half of the time, and the packed file else."""
    from napari_mamba import io
    from napari_mamba.io.common.source import LabelEntry

    classes = [LabelEntry(1, "one", "#ff0000"), LabelEntry(2, "two", "#00ff00")]
    seeds = []
    for name in names:
        labels = "seg" in name
        volume = _volume().with_data(_volume().data % 3) if labels else _volume()
        path = io.write(volume, folder / name, classes=classes if labels else ())
        content = re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"urn:uuid:" + b"0" * 36, path.read_bytes())  # OME's are random
        seeds.append((path.name, content))

    def target(rng: np.random.Generator) -> object:
        name, content = seeds[rng.integers(len(seeds))]
        if unpack and content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
            content = gzip.compress(mutated(gzip.decompress(content), rng), 1)
        else:
            content = mutated(content, rng)
        (folder / f"mutated-{name}").write_bytes(content)
        return _read(folder / f"mutated-{name}")

    return target


def _nifti(folder: Path) -> Target:
    return _of_files(folder, ["a.nii", "b.nii.gz", "seg.nii", "seg.nii.gz"], unpack=True)


def _mgh(folder: Path) -> Target:
    return _of_files(folder, ["a.mgh", "b.mgz"], unpack=True)


def _nrrd(folder: Path) -> Target:
    return _of_files(folder, ["a.nrrd", "c.seg.nrrd"])


def _metaimage(folder: Path) -> Target:
    packed = _of_files(folder, ["a.mha", "seg.mha"])
    raw = _volume().data.tobytes()
    head = (
        b"ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 1\nDimSize = 6 5 4\n"
        b"ElementType = MET_SHORT\nElementDataFile = a.raw\n"
    )
    (folder / "a.raw").write_bytes(raw)

    def target(rng: np.random.Generator) -> object:
        if rng.random() < 0.5:
            return packed(rng)
        (folder / "mutated.mhd").write_bytes(mutated(head, rng))
        return _read(folder / "mutated.mhd")

    return target


def _tiff(folder: Path) -> Target:
    return _of_files(folder, ["a.tif", "b.ome.tif", "seg.tif"])


def _picture(folder: Path) -> Target:
    from PIL import Image

    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 15)).astype(np.uint8))
    seeds = []
    for name in ("a.png", "a.jpg", "a.bmp"):
        grey.save(folder / name)
        seeds.append((name, (folder / name).read_bytes()))

    def target(rng: np.random.Generator) -> object:
        name, content = seeds[rng.integers(len(seeds))]
        (folder / f"mutated-{name}").write_bytes(mutated(content, rng))
        return _read(folder / f"mutated-{name}")

    return target


def _dicom(folder: Path) -> Target:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4"
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2", "1.3"
    data.Modality, data.SeriesNumber, data.Rows, data.Columns = "MR", 1, 5, 6
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelSpacing, data.RescaleSlope, data.RescaleIntercept = [1, 1], 2, -5
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    data.PixelData = np.arange(30, dtype=np.uint16).tobytes()
    seeds = []
    data.save_as(folder / "plain.dcm", enforce_file_format=True)
    for syntax in (None, "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"):
        data = pydicom.dcmread(folder / "plain.dcm")
        if syntax:
            data.compress(syntax, generate_instance_uid=False)
        data.save_as(folder / "seed.dcm", enforce_file_format=True)
        seeds.append((folder / "seed.dcm").read_bytes())
    (folder / "in").mkdir()

    def target(rng: np.random.Generator) -> object:
        content = bytearray(mutated(seeds[rng.integers(len(seeds))], rng))
        if rng.random() < 0.8:
            content[128:132] = b"DICM"
        (folder / "in" / "a.dcm").write_bytes(content)
        return _read(folder / "in" / "a.dcm")

    return target


def _zarr(folder: Path) -> Target:
    from napari_mamba import io
    from napari_mamba.io.common.source import LabelEntry

    io.write(_volume().with_data(_volume().data % 3), folder / "seed.zarr", classes=[LabelEntry(1, "one", "#ff0000")])
    files = sorted(file for file in (folder / "seed.zarr").rglob("*") if file.is_file())

    whole = {file: file.read_bytes() for file in files}

    def target(rng: np.random.Generator) -> object:
        file = files[rng.integers(len(files))]
        change = mutated_json if file.name.startswith(".z") else mutated
        file.write_bytes(change(whole[file], rng))
        try:
            return _read(folder / "seed.zarr")
        finally:
            file.write_bytes(whole[file])

    return target


def _tiny(folder: Path) -> Path:
    from tiny_bundle import make_tiny_bundle

    return make_tiny_bundle(folder / "tiny", ("T1",))


def _bundle(folder: Path) -> Target:
    from napari_mamba import bundles

    path = _tiny(folder)
    text = (path / "bundle.json").read_bytes()

    def target(rng: np.random.Generator) -> object:
        (path / "bundle.json").write_bytes(mutated_json(text, rng))
        bundle = bundles.load(path)
        return bundle.networks() if rng.random() < 0.2 else bundle.card

    return target


def _bundle_files(folder: Path) -> Target:
    from napari_mamba import bundles

    path = _tiny(folder)
    with zipfile.ZipFile(folder / "seed.zip", "w", zipfile.ZIP_STORED) as archive:
        for file in path.iterdir():
            archive.write(file, file.name)
    whole, weights = (folder / "seed.zip").read_bytes(), (path / "weights.safetensors").read_bytes()

    def target(rng: np.random.Generator) -> object:
        if rng.random() < 0.5:
            (folder / "mutated.zip").write_bytes(mutated(whole[:-400], rng) + mutated(whole[-400:], rng))
            bundle = bundles.load(folder / "mutated.zip")
        else:
            (path / "weights.safetensors").write_bytes(mutated(weights, rng))
            bundle = bundles.load(path)
            object.__setattr__(bundle, "declared", {})  # as if its author had hashed the damaged file
        return list(bundle.state_dicts())

    return target


def _checkpoint(folder: Path) -> Target:
    import torch

    from napari_mamba.bundles.importers.pickles import read_checkpoint

    content = {"state_dict": {f"layer.{i}.weight": torch.ones(3, 4) * i for i in range(4)}, "epoch": np.float64(3)}
    torch.save(content, folder / "seed.pth")
    torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
    seeds = [(folder / name).read_bytes() for name in ("seed.pth", "old.pth")]

    def target(rng: np.random.Generator) -> object:
        (folder / "mutated.pth").write_bytes(mutated(seeds[rng.integers(2)], rng))
        return read_checkpoint(folder / "mutated.pth")

    return target


def _pickle(folder: Path) -> Target:
    from napari_mamba.bundles.importers.nnunet.v1 import read_plan

    stage = {"patch_size": np.array([20, 24, 40]), "current_spacing": np.array([3.0, 1, 0.5]),
             "pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2]]}  # fmt: skip
    plans = {
        "plans_per_stage": {0: stage},
        "all_classes": [1, 2],
        "modalities": {0: "MRI"},
        "num_modalities": 1,
        "transpose_forward": [0, 1, 2],
        "normalization_schemes": {0: "nonCT"},
        "use_mask_for_norm": {0: False},
    }
    content = {"plans": plans, "init": ("a", 0, "b", "c", None, 0), "name": "nnUNetTrainerV2"}
    seeds = [pickle.dumps(content, protocol) for protocol in (0, 2, 4)]

    def target(rng: np.random.Generator) -> object:
        (folder / "a.model.pkl").write_bytes(mutated(seeds[rng.integers(len(seeds))], rng))
        return read_plan(folder / "a.model.pkl")

    return target


PLANS = {
    "dataset_name": "Dataset001_Toy",
    "transpose_forward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {
        "0": {"percentile_00_5": 0, "percentile_99_5": 9, "mean": 3, "std": 1}
    },
    "configurations": {
        "2d": {"patch_size": [32, 32], "spacing": [1, 1]},
        "3d_fullres": {
            "patch_size": [16, 16, 16],
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"order": 1, "order_z": 0, "force_separate_z": None},
        },
        "child": {"inherits_from": "3d_fullres"},
    },
}
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "both": [1, 2]},
           "regions_class_order": [1, 2], "file_ending": ".nii.gz"}  # fmt: skip


def _plans(folder: Path) -> Target:
    import json

    from napari_mamba.bundles.doors import explained
    from napari_mamba.bundles.importers.nnunet import plans as reader

    plans, dataset = json.dumps(PLANS).encode(), json.dumps(DATASET).encode()

    @explained  # as every importer is
    def use(where: Path) -> object:
        about = reader.load_json(folder / "dataset.json")
        channels = reader.channels_of(about, where)
        settings = reader.resolve(reader.load_json(where), "child", where)
        return reader.classes_of(about, where), reader.preparation_of(settings, len(channels), where)

    def target(rng: np.random.Generator) -> object:
        (folder / "plans.json").write_bytes(mutated_json(plans, rng) if rng.random() < 0.7 else plans)
        (folder / "dataset.json").write_bytes(mutated_json(dataset, rng) if rng.random() < 0.5 else dataset)
        return use(folder / "plans.json")

    return target


def _monai(folder: Path) -> Target:
    import json

    from napari_mamba.bundles.doors import explained
    from napari_mamba.bundles.importers.monai import bundle as monai
    from napari_mamba.bundles.importers.monai import steps as monai_steps
    from napari_mamba.bundles.importers.monai.config import Config

    text = json.dumps(
        {
            "size": [16, 16, 16],
            "network_def": {"_target_": "UNet", "spatial_dims": 3, "channels": [4, 8]},
            "preprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "LoadImaged", "keys": "image"},
                    {"_target_": "Orientationd", "axcodes": "RAS"},
                    {"_target_": "Spacingd", "pixdim": [1.0, 1.0, 2.0], "mode": "bilinear"},
                    {
                        "_target_": "ScaleIntensityRanged",
                        "a_min": -57,
                        "a_max": 164,
                        "b_min": 0,
                        "b_max": 1,
                        "clip": True,
                    },
                    {"_target_": "NormalizeIntensityd", "nonzero": True, "channel_wise": True},
                    {"_target_": "Resized", "spatial_size": "@size", "mode": "trilinear"},
                ],
            },
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@size", "overlap": 0.5},
            "postprocessing": {"transforms": [{"_target_": "Activationsd", "softmax": True}]},
        }
    ).encode()

    @explained
    def use(where: Path) -> object:
        config = Config(where)
        monai._network_arguments(config)
        steps = monai_steps.preparation_of(monai._transforms(config), 1, 3, str(where))
        return steps, monai._tile(config, {}), monai._activation(config), monai._window(config)

    def target(rng: np.random.Generator) -> object:
        (folder / "inference.json").write_bytes(mutated_json(text, rng))
        return use(folder / "inference.json")

    return target


TARGETS: dict[str, Callable[[Path], Target]] = {
    "nifti": _nifti,
    "mgh": _mgh,
    "nrrd": _nrrd,
    "metaimage": _metaimage,
    "tiff": _tiff,
    "picture": _picture,
    "dicom": _dicom,
    "zarr": _zarr,
    "bundle": _bundle,
    "bundle-files": _bundle_files,
    "checkpoint": _checkpoint,
    "pickle": _pickle,
    "nnunet-plans": _plans,
    "monai": _monai,
    **DOORS,
}
