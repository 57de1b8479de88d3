"""The same artefacts made by TorchIO (Pérez-García et al., 2021), on whole scans: what the bundle is measured with.

Strengths are drawn from the ranges of `artefacts.RANGES`; what TorchIO makes of them is TorchIO's. Needs torchio, in
the extra "train".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from napari_mamba.errors import InputError
from napari_mamba.recipes.quality.artefacts import (
    ARTEFACTS,
    BIAS_ORDER,
    MAX_BIAS_FIELD,
    MILD,
    RANGES,
    TISSUE,
    bias_powers,
)
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
    torchio = _torchio()

    def corrupt(image: Any) -> Any:
        for name in ("bias field", "blur", "motion", "ghosting", "spikes", "noise"):
            if name in names:
                image = make(torchio, name, image, random)(image)
        return image

    return through(torchio, volume, corrupt)


def mild(volume: Volume, random: np.random.Generator) -> Volume:
    """A scan with what still counts as clean: a weak bias field, a little blur and noise, each up to `MILD`."""
    torchio = _torchio()

    def changed(image: Any) -> Any:
        image = bias_field(torchio, image, random.uniform(0, MILD["bias field"]), random)(image)
        image = torchio.Blur(std=(float(random.uniform(0, MILD["blur"])),) * 3)(image)
        return torchio.Noise(mean=0.0, std=float(random.uniform(0, MILD["noise"])), seed=int(random.integers(2**31)))(
            image
        )

    return through(torchio, volume, changed)


def _torchio() -> Any:
    try:
        import torchio
    except ImportError as error:
        raise InputError(
            'torchio makes the artefacts and is not installed: pip install "napari-mamba[train]"'
        ) from error
    return torchio


def through(torchio: Any, volume: Volume, change: Callable[[Any], Any]) -> Volume:
    """What `change` makes of a scan as TorchIO's image, 1 being its 99.9th percentile; on its own scale again."""
    data = np.asarray(volume.data)[0].astype(np.float32)
    scale = float(np.percentile(data, 99.9)) or 1.0
    affine = volume.affine.copy()
    affine[:, :3] = affine[:, 2::-1]  # TorchIO counts x, y, z
    tensor = torch.from_numpy(np.ascontiguousarray((data / scale).transpose(2, 1, 0))[None])
    image = change(torchio.ScalarImage(tensor=tensor, affine=affine))
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
        return bias_field(torchio, image, random.uniform(*limits["log_std"]), random)
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


def bias_field(torchio: Any, image: Any, log_std: float, random: np.random.Generator, tries: int = 200) -> Any:
    """A polynomial whose standard deviation over the head is `log_std`, and which nowhere passes `MAX_BIAS_FIELD`."""
    made = torchio.transforms.augmentation.intensity.random_bias_field.BiasField
    size, best = 32, (np.inf, np.zeros(len(bias_powers())))
    rows = [((np.arange(size) + 0.5) * n / size).astype(int) for n in image.spatial_shape]
    head = image.numpy()[0][np.ix_(*rows)] > TISSUE
    for _ in range(tries):
        weights = random.uniform(-1, 1, len(bias_powers()))
        field = np.log(made.generate_bias_field(torch.empty(1, size, size, size), BIAS_ORDER, weights.tolist()))
        factor = log_std / float(field[head].std())
        best = min(best, (float(np.abs(field).max()) * factor, weights * factor), key=lambda pair: pair[0])
        if best[0] <= MAX_BIAS_FIELD:
            break
    return torchio.BiasField(coefficients=best[1].tolist(), order=BIAS_ORDER)


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
