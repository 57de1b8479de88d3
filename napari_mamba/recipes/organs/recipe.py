"""`organs-headneck-ct`: the organs at risk of the OpenKBP patients, labels of which some organs were not drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.radiotherapy.planning import GRID
from napari_mamba.recipes.dose import data
from napari_mamba.recipes.dose.task import ORGAN_BIT, ORGANS
from napari_mamba.recipes.organs.losses import partial_dice_and_cross_entropy
from napari_mamba.training import augment
from napari_mamba.training.recipe import Recipe, Schedule

CLASSES = len(ORGANS) + 1
WINDOW = (96, 96, 128)
SPACING = GRID["usual"]
"""mm along (z, y, x): about what the patients have; voxels like theirs stay as they are."""

CHANCE = 0.05
"""Below this Dice an organ was not found."""

PREPARATION: tuple[dict[str, Any], ...] = (
    {"step": "orient", "axcodes": "RAS"},
    {
        "step": "resample",
        "spacing": list(SPACING),
        "keep": [list(GRID["slices"]), *[list(GRID["sides"])] * 2],
        "order": 1,
    },
    {"step": "crop_to_body", "margin": 30, "multiple": 16},
    {"step": "normalise", "schemes": [{"scheme": "ct", "lower": -1000, "upper": 1000, "mean": 0, "std": 500}]},
)

LEFT_RIGHT_PAIRS = (1 + ORGANS.index("left parotid"), 1 + ORGANS.index("right parotid"))

NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": CLASSES,
    "features_per_stage": [32, 64, 96, 128, 192],
    "kernel_sizes": 3,
    "strides": [1, 2, 2, 2, 2],
    "n_conv_per_stage": [1, 2, 2, 1, 1],
    "n_conv_per_stage_decoder": 1,
    "input_size": list(WINDOW),
    "first_scan": 2,
}
RESENC: dict[str, Any] = {
    **NETWORK,
    "features_per_stage": [32, 64, 128, 256, 320],
    "n_conv_per_stage": [1, 3, 4, 6, 6],
    "generation": "v1",
    "first_scan": 5,
}
"""nnU-Net's residual encoder (Isensee et al., arXiv:2404.09556), of its preset's blocks: no stage has a scan."""

SMALL: dict[str, Any] = {**NETWORK, "features_per_stage": [8, 16, 16, 16, 16], "n_conv_per_stage": 1}

CHANGES: tuple[tuple[augment.Change, float], ...] = (
    (lambda x, draw: augment.contrast(x, draw, 0.85, 1.15), 0.3),
    (augment.blur, 0.15),
    (augment.random_low_resolution, 0.15),
    (lambda x, draw: augment.noise(x, draw, 0.15), 0.3),
)
"""Changes of contrast, sharpness and noise, with the share of the samples that they change; HU mean something."""


class OrgansHeadNeck(Recipe):
    """The same patients as `dose-headneck-ct`'s, in one file.

    Variants: a U-Mamba ("umamba"), nnU-Net's residual encoder U-Net for comparison ("resenc"), and a U-Mamba to try
    things with ("small").
    """

    name = "organs-headneck-ct"
    schedule = Schedule(
        steps=100_000, batch_size=2, learning_rate=4e-3, warm_up=300, validate_every=1000, optimiser="muon"
    )
    variants = ("umamba", "resenc", "small")
    on_device = True
    use_cuda_graph = True

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        super().__init__(data, seed, variant)
        self._stored: dict[tuple[str, torch.device], list[Tensor]] = {}

    def network(self) -> nn.Module:
        arguments = {"umamba": NETWORK, "resenc": RESENC, "small": SMALL}[self.variant]
        return models.create("umamba_enc", **arguments)

    def prepare_data(self) -> dict[str, np.ndarray]:
        """See `napari_mamba.recipes.dose.data`."""
        return data.pack(self.data)

    def patients(self, part: str, device: torch.device) -> list[Tensor]:
        """On a device: CTs (N, 1, Z, Y, X) uint8, labels alike, drawn (N, CLASSES) bool, middles (N, 3)."""
        if (part, device) not in self._stored:
            bits = self.arrays[f"{part}_structures"]
            labels = np.stack([labels_of(one) for one in bits])
            drawn = np.stack([drawn_in(one) for one in bits])
            middles = np.stack([_middle(one & 1 > 0) for one in bits])
            parts = [self.arrays[f"{part}_ct"][:, None], labels[:, None], drawn, middles]
            self._stored[part, device] = [torch.from_numpy(one).to(device) for one in parts]
        return self._stored[part, device]

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images (B, 1, *WINDOW) float32, labels (B, 1, *WINDOW), and which organs are drawn (B, CLASSES)."""
        ct, labels, drawn, middles = self.patients("training", device)
        draw = self.generator(step, device)
        picks = torch.randint(len(ct), (self.schedule.batch_size,), generator=draw, device=device)
        reach = torch.tensor([24.0, 8.0, 8.0], device=device)
        centre = middles[picks] + augment.uniform((len(picks), 3), -1, 1, draw) * reach
        place = augment.places(WINDOW, centre, draw, rotate=0.25, scale=(0.8, 1.25), elastic_strength=2.0, flip=())
        image = augment.sample(normalised(ct[picks]) + 2, place) - 2  # beyond the image there is air
        label = augment.sample_labels(labels[picks], place, CLASSES)
        mirrored = torch.rand(len(picks), generator=draw, device=device) < 0.5
        image, label = (torch.where(mirrored.view(-1, 1, 1, 1, 1), x.flip(-1), x) for x in (image, label))
        label = torch.where(mirrored.view(-1, 1, 1, 1, 1), exchanged(label), label)
        known = torch.where(mirrored[:, None], drawn[picks][:, _exchange()], drawn[picks])
        for change, chance in CHANGES:
            image = augment.random_apply(image, change, chance, draw)
        return image, (label, known)

    def loss(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        return partial_dice_and_cross_entropy(output, *target)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice of each organ over the validation patients in whom it is drawn, whole volumes at once."""
        ct, labels, drawn, _ = self.patients("validation", device)
        scores: list[Tensor] = []
        for image, truth, known in zip(ct, labels, drawn, strict=True):
            with torch.autocast(device.type, torch.bfloat16):
                predicted = network(normalised(image[None])).argmax(1)[0]
            dice = torch.stack([_dice(predicted == n, truth[0] == n) for n in range(1, CLASSES)])
            scores.append(torch.where(known[1:], dice, torch.nan))
        means = torch.stack(scores).nanmean(0).tolist()
        named = {f"dice_{organ.replace(' ', '_')}": value for organ, value in zip(ORGANS, means, strict=True)}
        return named | {"score": float(np.nanmean(means))}


def normalised(ct: Tensor) -> Tensor:
    """Stored CTs as the bundle's preparation has them: −2 at −1000 HU, 2 at 1000 HU."""
    return ct.float() * (2 / data.STEPS) - 2


def labels_of(bits: np.ndarray) -> np.ndarray:
    """Labels (Z, Y, X) uint8 of a patient's bits: organ n of `ORGANS` is n + 1. Of two that overlap the later."""
    labels = np.zeros(bits.shape, np.uint8)
    for number in range(len(ORGANS)):
        labels[bits >> (ORGAN_BIT + number) & 1 == 1] = 1 + number
    return labels


def drawn_in(bits: np.ndarray) -> np.ndarray:
    """Which classes (CLASSES,) were drawn in a patient, the background included."""
    every = int(np.bitwise_or.reduce(bits, axis=None))
    return np.array([True, *(bool(every >> (ORGAN_BIT + number) & 1) for number in range(len(ORGANS)))])


def exchanged(labels: Tensor) -> Tensor:
    """Labels with left and right in each other's place."""
    left, right = LEFT_RIGHT_PAIRS
    return torch.where(labels == left, right, torch.where(labels == right, left, labels))


def _exchange() -> list[int]:
    order = list(range(CLASSES))
    left, right = LEFT_RIGHT_PAIRS
    order[left], order[right] = right, left
    return order


def _middle(mask: np.ndarray) -> np.ndarray:
    places = np.argwhere(mask)
    return ((places.min(0) + places.max(0)) / 2).astype(np.float32)


def _dice(predicted: Tensor, truth: Tensor) -> Tensor:
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()).clamp(min=1)
