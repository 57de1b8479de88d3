"""`mr-quality`: clean, motion, ghosting, spikes, noise, bias field, blur, each with a probability, by nnMamba.

Scans: those that the restoration recipes share (`napari_mamba.recipes.restore.data`), people kept apart; the artefacts
are simulated while training, in k-space where they arise there (`artefacts`). A scan may have none, one or two.
Network: nnMamba for classification (Gong et al., arXiv:2402.03526), on slices 4 mm apart at 1 mm in-plane: fine enough
for noise and blur, and wide enough to hold a head, whose shading only the whole shows; beside it a perceptron over
what k-space tells (`napari_mamba.nn.descriptors.spectrum`).
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.descriptors.spectrum import Spectrum, describe
from napari_mamba.recipes.quality import kspace, task
from napari_mamba.recipes.quality.artefacts import ARTEFACTS, RandomSource, add, nearly_clean, to_device
from napari_mamba.recipes.quality.random_acquisition import Sides, random_acquisition
from napari_mamba.recipes.quality.task import CLASSES, SPACING, WINDOW
from napari_mamba.recipes.restore.data import FULL, Scan, pack, unpack
from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.scoring.classification import auc, macro_f1

VIEWS = 2
"""Windows made of each simulated scan: the simulation costs more than the window."""
CLEAN, PAIR = 0.18, 0.2  # shares of scans with none and with two artefacts
SIMULATED = 1200
"""Windows of the training people, one of each simulated scan, on which the perceptron over k-space is trained."""
CHECKS = 8  # simulated scans of each validation scan and class


class Quality(Recipe):
    """Windows of simulated scans, with a target (7,) of 0 and 1; `PAIR` of them carry two artefacts."""

    name = "mr-quality"
    variants = ("nnmamba-axis", "nnmamba", "resnet")
    on_device = True
    schedule = Schedule(
        steps=3000, batch_size=16, learning_rate=1.5e-3, weight_decay=1e-2, warm_up=150, ema=0.998, validate_every=250
    )

    def prepare_data(self) -> dict[str, np.ndarray]:
        return pack(self.data)

    @cached_property
    def scans(self) -> dict[str, list[Scan]]:
        """The scans of the training and of the validation people."""
        return {part: unpack(self.arrays, part) for part in ("training", "validation")}

    def rng(self, step: int, device: torch.device) -> RandomSource:
        """The random numbers of one step."""
        return RandomSource((self.seed + 7919 * step) % 2**31, device)

    def network(self) -> nn.Module:
        return task.network(self.variant)

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        rng, inputs, targets = self.rng(step, device), [], []
        scans = self._balanced
        for _ in range(max(1, self.schedule.batch_size // VIEWS)):
            scan = scans[rng.randint(0, len(scans) - 1)]
            names = draw_names(rng)
            image, spacing = simulate(scan, names, rng)
            for _ in range(VIEWS):
                inputs.append(window(image, spacing, rng))
                targets.append(target(names))
        return torch.stack(inputs)[:, None], to_device(torch.tensor(targets), device)

    @cached_property
    def _balanced(self) -> list[Scan]:
        """The training scans, those of the scarcer kind (isotropic, without a skull) as often as the others."""
        scans = self.scans["training"]
        few = [scan for scan in scans if scan.isotropic]
        many = [scan for scan in scans if not scan.isotropic]
        return many + few * max(1, len(many) // (2 * max(1, len(few))))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, target)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        scores, truth = self.answers(network, device)
        value = macro_f1(truth, scores > 0, len(CLASSES))
        single = macro_f1(truth.argmax(1), scores.argmax(1), len(CLASSES))
        area = float(np.mean([auc(truth[:, k], scores[:, k]) for k in range(len(CLASSES))]))
        surprise = float(F.binary_cross_entropy_with_logits(torch.from_numpy(scores), torch.from_numpy(truth).float()))
        return {
            "macro_f1": value, "macro_f1_likeliest": single, "auc": area, "cross_entropy": surprise,
            "score": value + single,
        }  # fmt: skip

    def answers(self, network: nn.Module, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, 7) for the simulated scans of the validation people, and what is true (N, 7), bool."""
        inputs, targets = self._checks(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            logits = [network(some.to(device).float()).float().cpu() for some in inputs.split(8)]
        return torch.cat(logits).numpy(), targets.numpy().astype(bool)

    def _checks(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The same simulated scans at each validation, one artefact at most; float16."""
        if not hasattr(self, "_kept"):
            rng = RandomSource(self.seed, device)
            inputs, targets = [], []
            for scan in self.scans["validation"]:
                for name in CLASSES:
                    for number in range(CHECKS):
                        names = [] if name == "clean" else [name]
                        image, spacing = simulate(scan, names, rng, vary=False)
                        if not names and number:  # the first as it is, the others with what a good scan may have
                            image = nearly_clean(image, spacing, rng)
                        inputs.append(window(image, spacing, rng, vary=False).half())
                        targets.append(target(names))
            self._kept = torch.stack(inputs)[:, None], torch.tensor(targets)
        return self._kept

    def table(self, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Descriptors (N, K) of `SIMULATED` windows of the training people and what is true of them (N, 7); once."""
        if not hasattr(self, "_table"):
            rows, truth = [], []
            for number in range(SIMULATED):
                rng = self.rng(-1 - number, device)
                scan, names = self._balanced[rng.randint(0, len(self._balanced) - 1)], draw_names(rng)
                rows.append(describe(window(*simulate(scan, names, rng), rng)[None, None]))
                truth.append(target(names))
            self._table = torch.cat(rows).cpu().double().numpy(), np.array(truth)
        return self._table

    @cached_property
    def spectrum(self) -> Spectrum:
        """The perceptron over the descriptors of k-space, trained; needs `table`, which says on what device."""
        return kspace.train(*self._table, self.seed)

    def validation_logits(self, network: nn.Module, device: torch.device) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits (N, 7) of the network and of the perceptron for the validation scans, and what is true (N, 7)."""
        logits, truth = self.answers(network, device)
        seen = [describe(some.to(device)).cpu() for some in self._checks(device)[0].split(8)]
        self.table(device)
        return logits, kspace.answers(self.spectrum, torch.cat(seen).numpy()), truth


def draw_names(rng: RandomSource) -> list[str]:
    """No artefact, one, or two."""
    share = rng.uniform(0, 1)
    count = 0 if share < CLEAN else 2 if share > 1 - PAIR else 1
    return rng.single.sample(ARTEFACTS, count)


def target(names: list[str]) -> list[float]:
    """One number a class: 1 for each artefact that is there, or for "clean" where none is."""
    return [float(not names), *(float(name in names) for name in ARTEFACTS)]


@lru_cache(maxsize=64)
def on_device(scan: Scan, device: torch.device) -> Tensor:
    """A scan's uint8 values on a device, once."""
    return torch.from_numpy(scan.data).to(device)


def simulate(scan: Scan, names: list[str], rng: RandomSource, vary: bool = True) -> tuple[Tensor, Sides]:
    """A scan (Z, Y, X) with artefacts on the device of `rng`, and its voxel sides; where `vary`, of another kind."""
    image, spacing = on_device(scan, rng.device).float() / FULL, scan.spacing
    if vary:
        image, spacing = random_acquisition(image, spacing, rng)
        image = nearly_clean(image, spacing, rng)
    return add(image, spacing, names, rng), spacing


def window(image: Tensor, spacing: Sides, rng: RandomSource, vary: bool = True) -> Tensor:
    """What the bundle's preparation makes of a scan (Z, Y, X): `WINDOW` voxels of `SPACING` about the middle.

    Slices are picked, not blended; in-plane the interpolation is linear. Standardised. Where `vary`, any axis may be
    mirrored, and scale and place differ.
    """
    scale = math.exp(rng.uniform(-0.12, 0.12)) if vary and rng.bernoulli(0.7) else 1.0
    depth, *plane = (max(1, round(n * s / t)) for n, s, t in zip(image.shape, spacing, SPACING, strict=True))
    picked = image[((torch.arange(depth, device=image.device) + 0.5) * (image.shape[0] / depth)).long()]
    size = [round(n * scale) for n in plane]
    if size != list(picked.shape[1:]):
        picked = F.interpolate(picked[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    pads = []
    for n, wanted, unit in zip(picked.shape, WINDOW, SPACING, strict=True):
        before = (wanted - n) // 2 + (round(rng.uniform(-10, 10) / unit) if vary else 0)
        pads.append((before, wanted - n - before))
    least = picked.min()
    cut = F.pad(picked - least, [pad for pair in reversed(pads) for pad in pair])  # zero is air; negative pads cut off
    if vary:
        cut = cut.flip([axis for axis in range(3) if rng.bernoulli(0.5)])
    return (cut - cut.mean()) / cut.std().clamp(min=1e-6)
