"""`hippocampus-mr`: anterior and posterior hippocampus in a T1-weighted MR crop, by a small U-Mamba.

Data: Medical Segmentation Decathlon, Task04 (Antonelli et al., Nature Communications 13:4128, 2022), CC BY-SA 4.0.
Network: U-Mamba Enc (Ma et al., arXiv:2401.04722). Volumes 2k-1 and 2k appear to be the two hippocampi of one person,
so people, not volumes, are split.
"""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import transforms as mt
from monai.losses import DiceCELoss
from torch import Tensor, nn

from napari_mamba import io, models
from napari_mamba.engine.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.scores import dice

TILE = (40, 56, 40)
CROP = (32, 48, 32)  # half the voxels of a tile and still most of a volume: three steps in four cost half
CLASSES = (1, 2)
PREPARATION = (
    {"step": "orient", "axcodes": "RAS"},
    {"step": "resample", "spacing": [1.0, 1.0, 1.0]},
    {"step": "normalise", "schemes": ["zscore"]},
)
NETWORK = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [16, 32, 64, 128],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [1, 1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1, 1],
    "input_size": list(TILE),
}


def person(path: Path) -> int:
    """Number of the person a Task04 volume belongs to: volumes 2k-1 and 2k are one person's two sides."""
    return (int(path.name.split(".")[0].rsplit("_", 1)[1]) + 1) // 2


def part(number: int) -> str:
    """Which part of the split a person is in: "test" (20%), "validation" (8%) or "training".

    By a checksum of the number, so it does not change with the volumes that happen to be in the folder.
    """
    percent = zlib.crc32(f"hippocampus-{number}".encode()) % 100
    return "test" if percent < 20 else "validation" if percent < 28 else "training"


def pairs(data: Path, which: str) -> list[tuple[Path, Path]]:
    """Image and label files of one part, in order; reads the Decathlon's own folder names too."""
    for images, labels in (("images", "labels"), ("imagesTr", "labelsTr")):
        files = sorted((data / images).glob("hippocampus_*.nii.gz"))
        if files:
            found = [(file, data / labels / file.name) for file in files if part(person(file)) == which]
            missing = [label.name for _, label in found if not label.exists()]
            if missing:
                raise InputError(f"{data / labels} lacks {', '.join(missing[:3])}: complete the data set")
            return found
    raise InputError(f"{data} holds no images/hippocampus_*.nii.gz: give the folder of Decathlon Task04")


class Hippocampus(Recipe):
    """The recipe. On two CPU cores it takes about an hour, on a GPU some minutes."""

    name = "hippocampus-mr"
    schedule = Schedule(steps=4500, batch_size=2, learning_rate=1.5e-3)

    def network(self) -> nn.Module:
        return models.create("umamba_enc", **NETWORK)

    @cached_property
    def _training(self) -> list[dict[str, Tensor]]:
        return [load(*pair) for pair in pairs(self.data, "training")]

    @cached_property
    def _validation(self) -> list[dict[str, Tensor]]:
        return [load(*pair) for pair in pairs(self.data, "validation")]

    @cached_property
    def _augment(self) -> dict[tuple[int, int, int], mt.Compose]:
        return {size: augmentation(size) for size in (CROP, TILE)}

    def size(self, step: int) -> tuple[int, int, int]:
        """Size of a training sample: a crop, and at every fourth step and towards the end a whole tile."""
        return TILE if step % 4 == 3 or step > 0.85 * self.schedule.steps else CROP

    @cached_property
    def _criterion(self) -> nn.Module:
        return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        random = np.random.RandomState((self.seed + 7919 * step) % 2**32)
        picks = random.randint(len(self._training), size=self.schedule.batch_size)
        augment, samples = self._augment[self.size(step)], []
        for pick in picks:
            augment.set_random_state(seed=int(random.randint(2**31)))
            samples.append(augment(dict(self._training[pick])))
        return torch.stack([s["image"] for s in samples]), torch.stack([s["label"] for s in samples])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self._criterion(output, target)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        both = ("image", "label")
        fit = mt.Compose([mt.ResizeWithPadOrCropd(both, TILE), mt.EnsureTyped(both, track_meta=False)])
        scores = []
        for sample in map(fit, self._validation):
            image = sample["image"][None].to(device, memory_format=torch.channels_last_3d)
            with torch.autocast(device.type, torch.bfloat16):
                predicted = network(image).argmax(1)[0].cpu().numpy()
            scores.append(dice(predicted, sample["label"][0].numpy().astype(int), CLASSES))
        anterior, posterior = np.nanmean(scores, axis=0)
        score = float((anterior + posterior) / 2)
        return {"dice_anterior": float(anterior), "dice_posterior": float(posterior), "score": score}

    def export(self, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
        from napari_mamba.training.hippocampus_bundle import export

        return export(weights, destination, history)

    def evaluate(self, bundle: Path | str, **options: Any) -> dict[str, Any]:
        from napari_mamba.training.hippocampus_bundle import evaluate

        return evaluate(self.data, bundle, **options)


def load(image: Path, label: Path) -> dict[str, Tensor]:
    """One sample, prepared as the bundle prepares its input: image (1, Z, Y, X) float32, label (1, Z, Y, X)."""
    volume, labels = io.read(image), io.read(label)
    steps = [step for step in PREPARATION if step["step"] == "orient"]
    return {
        "image": torch.from_numpy(np.ascontiguousarray(prepare(volume, PREPARATION).data)),
        "label": torch.from_numpy(np.ascontiguousarray(prepare(labels, steps).data)),
    }


def augmentation(size: tuple[int, int, int]) -> mt.Compose:
    """Random place, shape, contrast, noise and resolution; the ranges are those nnU-Net uses, a little wider."""
    both, image = ("image", "label"), ("image",)
    return mt.Compose(
        [
            mt.SpatialPadd(both, size),
            mt.RandSpatialCropd(both, size, random_size=False),
            mt.RandAffined(
                both,
                prob=0.8,
                rotate_range=[0.35] * 3,
                scale_range=[(-0.2, 0.25)] * 3,
                translate_range=[4] * 3,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            *(mt.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)),
            mt.RandBiasFieldd(image, prob=0.15, coeff_range=(0.0, 0.15)),
            mt.RandScaleIntensityd(image, prob=0.3, factors=0.3),
            mt.RandShiftIntensityd(image, prob=0.3, offsets=0.2),
            mt.RandAdjustContrastd(image, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            mt.RandGaussianSmoothd(image, prob=0.15, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
            mt.RandSimulateLowResolutiond(image, prob=0.15, zoom_range=(0.6, 1.0)),
            mt.RandGaussianNoised(image, prob=0.2, std=0.15),
            mt.EnsureTyped(both, track_meta=False),  # a MetaTensor would slow every operation of the network down
        ]
    )
