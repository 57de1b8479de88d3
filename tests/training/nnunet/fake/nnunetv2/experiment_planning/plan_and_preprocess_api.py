"""Fingerprint, plans, preprocessing."""

import shutil

from nnunetv2.places import dataset_name, folder, read_json, write_json


def extract_fingerprints(numbers: list[int], num_processes: int, clean: bool, show_progress_bar: bool) -> None:
    for number in numbers:
        write_json(folder("preprocessed") / dataset_name(number) / "dataset_fingerprint.json", {})


def plan_experiments(numbers: list[int], planner: str, gpu_memory: float | None) -> str:
    plans = {"ExperimentPlanner": "nnUNetPlans", "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}[planner]
    for number in numbers:
        name = dataset_name(number)
        described = read_json(folder("raw") / name / "dataset.json")
        channels = len(described["channel_names"])
        configurations = {
            key: {
                "data_identifier": f"{plans}_{key}", "batch_size": 2, "patch_size": [16] * dims,
                "spacing": [1.0] * dims,
                "normalization_schemes": ["ZScoreNormalization"] * channels, "use_mask_for_norm": [False] * channels,
                "architecture": {"arch_kwargs": {
                    "features_per_stage": [4, 8], "kernel_sizes": [[3] * dims] * 2, "strides": [[1] * dims, [2] * dims],
                    "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1],
                }},
            }
            for key, dims in (("2d", 2), ("3d_fullres", 3))
        }  # fmt: skip
        content = {
            "dataset_name": name, "plans_name": plans, "transpose_forward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {}, "configurations": configurations,
        }  # fmt: skip
        write_json(folder("preprocessed") / name / f"{plans}.json", content)
        write_json(folder("preprocessed") / name / "dataset.json", described)
    return plans


def preprocess_dataset(
    number: int, plans: str, configurations: list[str], num_processes: list[int], show_progress_bar: bool
) -> None:
    name = dataset_name(number)
    truth = folder("preprocessed") / name / "gt_segmentations"
    truth.mkdir(exist_ok=True)
    for case, files in read_json(folder("raw") / name / "dataset.json")["dataset"].items():
        shutil.copy(files["label"], truth / f"{case}.nii.gz")
