"""The same artefacts made by TorchIO (Pérez-García et al., 2021), on whole scans: what the bundle is measured with.

Strengths are drawn from the ranges of `artefacts.RANGES`; what TorchIO makes of them is TorchIO's. Needs torchio, in
the extra "train".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from napari_mamba.errors import InputError
from napari_mamba.training.quality.artefacts import ARTEFACTS, BIAS_ORDER, RANGES, bias_powers
from napari_mamba.volume import Volume


def add(volume: Volume, names: Sequence[str], random: np.random.Generator) -> Volume:
    """A scan (one channel) with the named artefacts, in the order in which a scanner makes them.

    Parameters
    ----------
    volume : Volume
    names : sequence of str
        Out of `ARTEFACTS`.
    random : numpy.random.Generator
        Strengths come from it, and TorchIO's own random numbers are seeded from it.

    Returns
    -------
    Volume
        float32, in the scan's own scale and grid.

    Raises
    ------
    InputError
        If torchio is not installed.
    """
    try:
        import torchio
    except ImportError as error:
        raise InputError(
            'torchio makes the artefacts and is not installed: pip install "napari-mamba[train]"'
        ) from error
    data = np.asarray(volume.data)[0].astype(np.float32)
    scale = float(np.percentile(data, 99.9)) or 1.0
    affine = volume.affine.copy()
    affine[:, :3] = affine[:, 2::-1]  # TorchIO counts x, y, z
    tensor = torch.from_numpy(np.ascontiguousarray((data / scale).transpose(2, 1, 0))[None])
    image: Any = torchio.ScalarImage(tensor=tensor, affine=affine)
    for name in ("bias field", "blur", "motion", "ghosting", "spikes", "noise"):
        if name in names:
            image = make(torchio, name, image, random)(image)
    made = image.numpy()[0].transpose(2, 1, 0) * scale
    return volume.with_data(np.ascontiguousarray(made, np.float32)[None])


def make(torchio: Any, name: str, image: Any, random: np.random.Generator) -> Any:
    """TorchIO's transform for one artefact, with strengths drawn."""
    limits, seed = RANGES[name], int(random.integers(2**31))
    if name == "noise":
        return torchio.Noise(mean=0.0, std=float(random.uniform(*limits["std"])), seed=seed)
    if name == "blur":
        return torchio.Blur(std=(float(random.uniform(*limits["std_mm"])),) * 3)
    if name == "bias field":
        weights = random.uniform(-1, 1, len(bias_powers()))
        wanted = random.uniform(*limits["log_std"])
        field = torchio.transforms.augmentation.intensity.random_bias_field.BiasField.generate_bias_field(
            torch.empty(1, 32, 32, 32), BIAS_ORDER, weights.tolist()
        )
        return torchio.BiasField(coefficients=(weights * wanted / np.log(field).std()).tolist(), order=BIAS_ORDER)
    if name == "spikes":
        count = int(random.integers(limits["spikes"][0], limits["spikes"][1] + 1))
        return torchio.Spike(
            spikes_positions=random.random((count, 3)), intensity=float(random.uniform(*limits["intensity"]))
        )
    if name == "ghosting":
        return torchio.Ghosting(
            num_ghosts=int(random.integers(limits["ghosts"][0], limits["ghosts"][1] + 1)),
            axis=int(random.integers(3)),
            intensity=float(random.uniform(*limits["intensity"])),
            restore=None,
        )
    if name == "motion":
        return motion(torchio, random)
    raise InputError(f"there is no artefact {name!r}; there are {', '.join(ARTEFACTS)}")


def motion(torchio: Any, random: np.random.Generator) -> Any:
    """Movements of which each turns or shifts the head far enough to be seen."""
    limits = RANGES["motion"]
    count = int(random.integers(limits["movements"][0], limits["movements"][1] + 1))
    degrees = random.uniform(-limits["degrees"][1], limits["degrees"][1], (count, 3))
    shifts = random.uniform(-limits["mm"][1], limits["mm"][1], (count, 3))
    small = (abs(degrees).max(1) < limits["degrees"][0]) & (abs(shifts).max(1) < limits["mm"][0])
    degrees[small, 0] = random.uniform(limits["degrees"][0], limits["degrees"][1], int(small.sum()))
    step = 1 / (count + 1)
    times = (np.arange(count) + 1) * step + random.uniform(-0.3, 0.3, count) * step
    return torchio.Motion(degrees=degrees, translation=shifts, times=times, image_interpolation="linear")
