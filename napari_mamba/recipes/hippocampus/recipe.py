"""`hippocampus-mr`: anterior and posterior hippocampus in a T1-weighted MR crop, by a small U-Mamba.

Data: Medical Segmentation Decathlon, Task04 (Antonelli et al., Nature Communications 13:4128, 2022), CC BY-SA 4.0.
Network: U-Mamba Enc (Ma et al., arXiv:2401.04722). Volumes 2k-1 and 2k appear to be the two hippocampi of one person,
so people, not volumes, are split.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.training import augment
from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.scoring.scores import dice

TILE = (40, 56, 40)
CLASSES = (1, 2)
PREPARATION = (
    {"step": "field_of_view", "mm": [20, 90]},  # a whole head is doubted; training's crops have 24 to 58 mm
    {"step": "orient", "axcodes": "RAS"},
    {"step": "resample", "spacing": [1.0, 1.0, 1.0]},
    {"step": "normalise", "schemes": ["zscore"]},
)
NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [24, 48, 96, 160],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2, 2],
    "n_conv_per_stage_decoder": [1, 1, 1],
    "input_size": list(TILE),
}

SMALL: dict[str, Any] = {"features_per_stage": [16, 32, 64, 128], "n_conv_per_stage": [1, 1, 1, 1]}


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
    """The recipe: volumes of all sizes in one padded array on the device, changed there in shape and contrast.

    Variants: a U-Mamba with a scan after each stage ("umamba"), the same with one scan at the bottom ("bottom"), a
    SegResNet (Myronenko, arXiv:1810.11654) of as many parameters ("segresnet"), and a smaller U-Mamba that two CPU
    cores train in an hour or two ("small").
    """

    name = "hippocampus-mr"
    schedule = Schedule(
        steps=4000, batch_size=12, learning_rate=6e-3, warm_up=200, validate_every=250, optimiser="muon"
    )
    variants = ("umamba", "bottom", "segresnet", "small")
    on_device = True
    use_cuda_graph = True

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        super().__init__(data, seed, variant)
        if self.variant == "small":
            # After 700 steps 0.871 on the validation people, from 0.856 by AdamW at 1.5e-3 (benchmarks/optimisers.py).
            self.schedule = Schedule(steps=4500, batch_size=2, learning_rate=6e-3, optimiser="muon")

    def network(self) -> nn.Module:
        if self.variant == "segresnet":
            return SegResNet(3, init_filters=16, in_channels=1, out_channels=3, blocks_down=(1, 2, 2, 2))
        if self.variant == "small":
            return models.create("umamba_enc", **{**NETWORK, **SMALL})
        return models.create("umamba_bot" if self.variant == "bottom" else "umamba_enc", **NETWORK)

    def prepare_data(self) -> dict[str, np.ndarray]:
        """Images (V, Z, Y, X) float16 and labels uint8, zero beyond each volume's own shape; and whose they are."""
        arrays: dict[str, np.ndarray] = {}
        for which in ("training", "validation"):
            loaded = [load(*pair) for pair in pairs(self.data, which)]
            shapes = np.array([image.shape for image, _ in loaded])
            size = (len(loaded), *shapes.max(axis=0))
            images, labels = np.zeros(size, np.float16), np.zeros(size, np.uint8)
            for row, (image, label) in enumerate(loaded):
                at: tuple[Any, ...] = (row, *(slice(n) for n in image.shape))
                images[at], labels[at] = image, label
            arrays |= {f"{which}_images": images, f"{which}_labels": labels, f"{which}_shapes": shapes}
        return arrays

    @cached_property
    def _stored(self) -> dict[torch.device, list[Tensor]]:
        return {}

    def _training(self, device: torch.device) -> list[Tensor]:
        """Images, labels and shapes on a device, copied there once."""
        if device not in self._stored:
            parts = [torch.from_numpy(self.arrays[f"training_{key}"]) for key in ("images", "labels", "shapes")]
            self._stored[device] = [part.float()[:, None].to(device) for part in parts]
        return self._stored[device]

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 1, *TILE) float32 and labels (B, 1, *TILE), on the device."""
        images, labels, shapes = self._training(device)
        draw = self.generator(step, device)
        picks = torch.randint(len(images), (self.schedule.batch_size,), generator=draw, device=device)
        shift = augment.uniform((len(picks), 3), -6, 6, draw)
        # Only left and right look alike: front and back tell anterior from posterior.
        place = augment.places(TILE, (shapes[picks, 0] - 1) / 2 + shift, draw, elastic_strength=2.0, flip=(2,))
        image = augment.sample(images[picks], place)
        label = augment.sample_labels(labels[picks], place, len(CLASSES) + 1)
        for change, chance in CHANGES:
            image = augment.random_apply(image, change, chance, draw)
        return image, label

    @cached_property
    def _criterion(self) -> nn.Module:
        return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self._criterion(output, target)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice of the validation people, from one centred tile each."""
        scores = []
        for tile, truth in validation_tiles(self.arrays, device):
            with torch.autocast(device.type, torch.bfloat16):
                predicted = network(tile).argmax(1)[0].cpu().numpy()
            scores.append(dice(predicted, truth, CLASSES))
        anterior, posterior = np.nanmean(scores, axis=0)
        score = float((anterior + posterior) / 2)
        return {"dice_anterior": float(anterior), "dice_posterior": float(posterior), "score": score}

    def export(self, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
        from napari_mamba.recipes.hippocampus.bundle import export

        return export(weights, destination, history)

    def evaluate(self, bundle: Path | str, **options: Any) -> dict[str, Any]:
        from napari_mamba.recipes.hippocampus.bundle import evaluate

        return evaluate(self.data, bundle, **options)


CHANGES: tuple[tuple[augment.Change, float], ...] = (
    (augment.bias_field, 0.15),
    (augment.contrast, 0.3),
    (augment.gamma, 0.3),
    (augment.blur, 0.15),
    (augment.random_low_resolution, 0.15),
    (augment.noise, 0.25),
)
"""Changes of contrast, sharpness and noise, with the share of the samples that they change."""


def validation_tiles(arrays: dict[str, np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, np.ndarray]]:
    """One centred tile (1, 1, *TILE) float32 of each validation volume, and its labels (*TILE) int."""
    stored = (arrays[f"validation_{name}"] for name in ("images", "labels", "shapes"))
    for image, label, shape in zip(*stored, strict=True):
        tile = torch.from_numpy(centred(image.astype(np.float32), shape))[None, None]
        yield tile.to(device), centred(label, shape).astype(int)


def centred(stored: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The volume of a given shape at the start of a padded array, at the middle of a tile; cut where it is larger."""
    out = np.zeros(TILE, stored.dtype)
    source, target = [], []
    for have, want in zip(shape, TILE, strict=True):
        width = int(min(have, want))
        source.append(slice((have - width) // 2, (have - width) // 2 + width))
        target.append(slice((want - width) // 2, (want - width) // 2 + width))
    out[tuple(target)] = stored[tuple(source)]
    return out


def load(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """One sample, prepared as the bundle prepares its input: image (Z, Y, X) float32 and label (Z, Y, X)."""
    from napari_mamba import io
    from napari_mamba.engine.preparation.prepare import prepare

    orient = [step for step in PREPARATION if step["step"] == "orient"]
    prepared, labels = prepare(io.read(image), PREPARATION).data[0], prepare(io.read(label), orient).data[0]
    if prepared.shape != labels.shape:
        raise InputError(f"{label} does not lie on the grid of {image}: complete the data set")
    return np.asarray(prepared), np.asarray(labels)
