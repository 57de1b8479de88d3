"""`dose-headneck-ct`: CT, organs at risk and targets with prescriptions in, dose out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.radiotherapy.scores import measure_differences
from napari_mamba.recipes.dose import task
from napari_mamba.recipes.dose.data import Patients, bits, pack
from napari_mamba.recipes.dose.losses import dose_loss, possible_of
from napari_mamba.recipes.dose.samples import TURNED, Points, collated, sample
from napari_mamba.recipes.dose.scoring import summary
from napari_mamba.training.recipe import Recipe, Schedule

EARLIER = 0.5
"""Weight of the first network's answer in a cascade, beside the second's."""


class DoseHeadNeck(Recipe):
    """Patients of the OpenKBP challenge, whole in the plane and nearly so along it, all of them on the device.

    Variants: a U-Mamba with scans from a quarter of the resolution on ("umamba"), a cascade of two plain U-Nets
    ("cascade") of as many parameters, as won the challenge, and a U-Mamba to try things with ("small"). All correct the
    same first guess, see `napari_mamba.models.dose`.
    """

    name = "dose-headneck-ct"
    schedule = Schedule(
        steps=100_000,
        batch_size=2,
        learning_rate=3e-3,
        weight_decay=1e-2,
        warm_up=300,
        validate_every=1500,
        optimiser="muon",
    )
    variants = ("umamba", "cascade", "small")
    on_device = True
    use_cuda_graph = True
    bent = 0.0
    """Share of the samples in other voxels than their patient's which are bent smoothly, too; none of those so far."""

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        super().__init__(data, seed, variant)
        self._stored: dict[torch.device, tuple[Patients, Points]] = {}
        self._validation: dict[torch.device, Patients] = {}

    def network(self) -> nn.Module:
        return models.create("fluence_dose", **task.arguments(self.variant))

    def prepare_data(self) -> dict[str, np.ndarray]:
        """See `napari_mamba.recipes.dose.data`."""
        return pack(self.data)

    def _patients(self, part: str, device: torch.device) -> Patients:
        """A part's patients on a device, with their first guesses."""
        patients = Patients(self.arrays, part, device)
        patients.guess(models.create("fluence_dose", **task.arguments("small")))  # it has no weights in it
        return patients

    def _training(self, device: torch.device) -> tuple[Patients, Points]:
        if device not in self._stored:
            patients = self._patients("training", device)
            self._stored[device] = patients, Points(patients)
        return self._stored[device]

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Inputs (B, 14, *window) and the targets of `losses.dose_loss`, on the device."""
        patients, points = self._training(device)
        random = np.random.RandomState((self.seed + 7919 * step) % 2**32)
        draw = self.generator(step, device)
        turned = bool(random.rand() < TURNED)
        numbers = random.choice(len(patients), self.schedule.batch_size, replace=len(patients) < 2)
        inputs, (dose, *rest) = collated(
            [sample(patients, points, int(n), turned, random, draw, self.bent) for n in numbers]
        )
        return inputs, (dose, possible_of(inputs), *rest)

    def loss(self, output: Tensor | tuple[Tensor, Tensor], target: tuple[Tensor, ...]) -> Tensor:
        if isinstance(output, Tensor):
            return dose_loss(output, target)
        first, second = output
        return dose_loss(second, target) + EARLIER * dose_loss(first, target)

    def validation(self, device: torch.device) -> Patients:
        """The validation patients on a device, read once."""
        if device not in self._validation:
            self._validation[device] = self._patients("validation", device)
        return self._validation[device]

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The challenge's two scores on the validation patients, in Gy; `score` is minus their sum."""
        measured = summary(dict(scored(self, network, device)))
        dose, dvh = measured["dose_score"], measured["dvh_score"]
        return {"dose_score": dose, "dvh_score": dvh, "score": -dose - dvh}


def scored(recipe: DoseHeadNeck, network: nn.Module, device: torch.device) -> Iterator[tuple[str, dict[str, float]]]:
    """Each validation patient's name, and its mean error ("dose") and differences ("spinal cord mean"), in Gy."""
    patients = recipe.validation(device)
    for number, name in enumerate(patients.names):
        yield name, scores_of(patients, number, predicted([network], patients, number))


@torch.inference_mode()
def predicted(networks: Sequence[nn.Module], patients: Patients, number: int) -> Tensor:
    """The mean of the networks' doses (Z, Y, X) of a patient in Gy."""
    x = patients.input(number)[None]
    with torch.autocast(x.device.type, torch.bfloat16):
        doses = [network(x)[0, 0].float() for network in networks]
    return task.UNIT * torch.stack(doses).mean(0)


def scores_of(patients: Patients, number: int, dose: Tensor) -> dict[str, float]:
    """A patient's mean error ("dose") and differences ("spinal cord mean"), in Gy."""
    truth, structures = patients.truth(number), patients.structures[number]
    possible = bits(structures, task.POSSIBLE_BIT)
    differences = _differences(dose, truth, structures, patients.volume[number])
    errors = {f"{structure} {measure}": value for (structure, measure), value in differences.items()}
    return {"dose": float((dose - truth).abs().sum() / possible.sum()), **errors}


def _differences(dose: Tensor, truth: Tensor, structures: Tensor, volume: float) -> dict[tuple[str, str], float]:
    """`measure_differences` of a patient; only the structures' voxels leave the device."""
    anywhere = torch.nonzero(structures.flatten() > 1)[:, 0]
    codes = structures.flatten()[anywhere].cpu().numpy()
    values, true = (v.flatten()[anywhere].cpu().numpy() for v in (dose, truth))
    organs = {name: codes >> (task.ORGAN_BIT + n) & 1 == 1 for n, name in enumerate(task.ORGANS)}
    targets = {name: codes >> (task.TARGET_BIT + n) & 1 == 1 for n, name in enumerate(task.TARGETS)}
    return measure_differences(values, true, organs, targets, volume)
