"""MR artefacts in plain PyTorch, on any device: the models of TorchIO (Pérez-García et al., 2021) by the same formulas.

Every function takes one scan (Z, Y, X) float32, in which 1 is about the brightest tissue (its 99.9th percentile), and
the random numbers to draw from. The ranges begin where an artefact is clearly visible in
the scans of the training data (`RANGES`), which is the border that the bundle's card states. What is weaker is drawn
by `nearly_clean`, and counts as clean.

Nothing here waits for the device: whatever small is made on the CPU goes there by `to_device`.

Whatever acts on the lines of one axis, a blur or a change of k-space, is a matrix of that axis, and is applied as one:
scans come in many sizes, also prime ones, and a GPU plans or tunes each convolution and Fourier transform anew for
every size it meets, which takes a thousand times as long as the product.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ARTEFACTS = ("motion", "ghosting", "spikes", "noise", "bias field", "blur")
RANGES: dict[str, dict[str, Any]] = {
    "motion": {"degrees": (3.0, 10.0), "mm": (3.0, 10.0), "movements": (1, 4)},
    "ghosting": {"ghosts": (4, 10), "intensity": (0.5, 1.0)},
    "spikes": {"spikes": (1, 3), "intensity": (0.25, 1.5)},
    "noise": {"std": (0.06, 0.25)},
    "bias field": {"log_std": (0.2, 0.45)},
    "blur": {"std_mm": (1.5, 3.5)},
}
"""Strengths. Motion: largest angle or shift of each movement. Noise: of the 99.9th percentile. Spikes: of the brightest
point of k-space. Bias field: standard deviation of its logarithm over the head. Blur: of the Gaussian, in mm."""
MILD = {"noise": 0.025, "bias field": 0.08, "blur": 0.7}
"""Up to where a scan counts as clean, in the units of `RANGES`."""
BIAS_ORDER = 3
TISSUE = 0.1
"""Above it lies the head: a polynomial is strongest in the corners, where only air is and nothing shows."""
MAX_BIAS_FIELD = 3.5
"""Of the logarithm of a bias field, anywhere: a draw that goes beyond in some corner is made again."""


class RandomSource:
    """Random numbers from a seed: single ones on the CPU, where nothing waits for them, and images on a device."""

    def __init__(self, seed: int, device: torch.device):
        self.device = device
        self.single, self.many = random.Random(seed), torch.Generator(device).manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """One uniform number."""
        return self.single.uniform(low, high)

    def randint(self, low: int, high: int) -> int:
        """One whole number, both ends included."""
        return self.single.randint(low, high)

    def bernoulli(self, share: float) -> bool:
        """True in a share of the cases."""
        return self.uniform(0, 1) < share

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Normal numbers on the device."""
        return torch.randn(tuple(shape), generator=self.many, device=self.device)


def add(image: Tensor, spacing: Sequence[float], names: Sequence[str], rng: RandomSource) -> Tensor:
    """A scan with the named artefacts, in the order in which a scanner makes them, whatever the names' order.

    Parameters
    ----------
    image : (Z, Y, X) tensor, float32
    spacing : three floats
        (z, y, x), mm.
    names : sequence of str
        Out of `ARTEFACTS`.
    rng : RandomSource
    """
    made: dict[str, Callable[[], Tensor]] = {
        "bias field": lambda: bias_field(image, rng.uniform(*RANGES["bias field"]["log_std"]), rng),
        "blur": lambda: blur(image, spacing, rng.uniform(*RANGES["blur"]["std_mm"])),
        "motion": lambda: motion(image, spacing, rng),
        "ghosting": lambda: ghosting(image, rng),
        "spikes": lambda: spikes(image, rng),
        "noise": lambda: noise(image, rng.uniform(*RANGES["noise"]["std"]), rng),
    }
    for name, make in made.items():
        if name in names:
            image = make()
    return image


def nearly_clean(image: Tensor, spacing: Sequence[float], rng: RandomSource) -> Tensor:
    """What a good scan may have too: another contrast, a faint bias field, little noise, a little less sharp."""
    image = image.clamp(min=0) ** math.exp(rng.uniform(-0.3, 0.3))
    if rng.bernoulli(0.5):
        image = bias_field(image, rng.uniform(0.0, MILD["bias field"]), rng)
    if rng.bernoulli(0.4):
        image = blur(image, spacing, rng.uniform(0.2, MILD["blur"]))
    if rng.bernoulli(0.4):
        image = noise(image, rng.uniform(0.0, MILD["noise"]), rng)
    return image


def noise(image: Tensor, std: float, rng: RandomSource) -> Tensor:
    """Gaussian noise, or in half of the cases that of a magnitude image (Rician)."""

    def drawn() -> Tensor:
        return std * rng.normal(image.shape)

    if rng.bernoulli(0.5):
        return image + drawn()
    return torch.hypot(image + drawn(), drawn())


def blur(image: Tensor, spacing: Sequence[float], std_mm: float) -> Tensor:
    """A Gaussian of the same width in mm along each axis."""
    for axis, side in enumerate(spacing):
        image = along(image, gaussian(image.shape[axis], std_mm / side, image.device), axis)
    return image


def to_device(small: Tensor, device: torch.device) -> Tensor:
    """A small tensor from the CPU's memory, without waiting until the device has done what it was given before."""
    return small.to(device, non_blocking=True)


def along(image: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply every line along one axis of an image (Z, Y, X) by a matrix (M, N); N becomes M."""
    if axis == 0:
        return (matrix @ image.flatten(1)).unflatten(1, image.shape[1:])
    return matrix @ image if axis == 1 else image @ matrix.T


def gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    """The matrix (size, size) of SciPy's `gaussian_filter1d`: cut off at 4 sigma, lines reflected at their ends."""
    place, reach = torch.arange(size, device=device, dtype=torch.float32), int(4 * sigma + 0.5)
    total = torch.zeros(size, size, device=device)
    for mirrored in (place, -1 - place, 2 * size - 1 - place):
        offset = place[:, None] - mirrored
        total += torch.exp(-0.5 * (offset / sigma) ** 2) * (offset.abs() <= reach)
    return total / total.sum(1, keepdim=True)


def k_space(factor: Tensor, device: torch.device) -> Tensor:
    """The matrix (N, N) that multiplies a line's k-space, its centre in the middle, by `factor` (N,) on the CPU."""
    kernel = torch.fft.ifft(torch.fft.ifftshift(factor)).real  # the real part: images are
    place = torch.arange(len(factor), device=device)
    return to_device(kernel, device)[(place[:, None] - place) % len(factor)]


def bias_powers() -> list[tuple[int, int, int]]:
    """Exponents (x, y, z) of the polynomial's terms, in TorchIO's order of coefficients."""
    top = BIAS_ORDER + 1
    return [(x, y, z) for x in range(top) for y in range(top - x) for z in range(top - x - y)]


def bias_field(image: Tensor, log_std: float, rng: RandomSource) -> Tensor:
    """Multiply by the exponential of a random polynomial of third order; over the head it has mean 0, SD `log_std`."""
    weights = limit_bias_field([rng.uniform(-1, 1) for _ in bias_powers()], log_std, rng)
    field = polynomial(image.shape, weights, image.device)
    head = (image > TISSUE).float()
    voxels = head.sum().clamp(min=1)
    field = field - (field * head).sum() / voxels
    deviation = ((field.square() * head).sum() / voxels).sqrt().clamp(min=1e-6)
    return image * torch.exp((field * (log_std / deviation)).clamp(-MAX_BIAS_FIELD, MAX_BIAS_FIELD))


def limit_bias_field(weights: list[float], log_std: float, rng: RandomSource, tries: int = 20) -> list[float]:
    """These weights, or others where the field would pass `MAX_BIAS_FIELD`, taking the head for an ellipsoid."""
    inside, best = _ellipsoid(), (math.inf, weights)
    for _ in range(tries):
        field = polynomial(inside.shape, weights, inside.device)
        head = field[inside]
        peak = float((field - head.mean()).abs().max() / head.std()) * log_std
        best = min(best, (peak, weights))
        if peak <= MAX_BIAS_FIELD:
            break
        weights = [rng.uniform(-1, 1) for _ in weights]
    return best[1]


@lru_cache
def _ellipsoid(size: int = 12, radius: float = 0.85) -> Tensor:
    """A head in its box, coarsely: (size, size, size) bool, on the CPU."""
    squared = torch.linspace(-1, 1, size).square()
    return squared[:, None, None] + squared[:, None] + squared < radius**2


def polynomial(shape: Sequence[int], weights: Sequence[float], device: torch.device) -> Tensor:
    """A polynomial (Z, Y, X) over coordinates from -1 to 1; `weights` as `bias_powers` orders them."""
    top = BIAS_ORDER + 1
    table = torch.zeros(top, top, top)  # of exponents z, y, x
    for weight, (px, py, pz) in zip(weights, bias_powers(), strict=True):
        table[pz, py, px] = weight
    table, exponents = to_device(table, device), torch.arange(top, device=device)
    for axis, n in enumerate(shape):
        table = along(table, torch.linspace(-1, 1, n, device=device)[:, None] ** exponents, axis)
    return table


def ghosting(image: Tensor, rng: RandomSource) -> Tensor:
    """Weaken every n-th line of k-space along one axis, the central one excepted: n faint copies of the head."""
    axis = rng.randint(0, 2)
    ghosts = rng.randint(*RANGES["ghosting"]["ghosts"])
    intensity = rng.uniform(*RANGES["ghosting"]["intensity"])
    lines = image.shape[axis]
    factor = torch.ones(lines)
    factor[::ghosts] = 1 - intensity
    factor[lines // 2] = 1
    return along(image, k_space(factor, image.device), axis)


def spikes(image: Tensor, rng: RandomSource) -> Tensor:
    """Single points of k-space raised: stripes across the whole image."""
    intensity = rng.uniform(*RANGES["spikes"]["intensity"])
    # The brightest point of k-space is the sum of the image; one point of k-space is one wave in the image.
    height = intensity * image.sum() / image.numel()
    for _ in range(rng.randint(*RANGES["spikes"]["spikes"])):
        phase = torch.zeros((), device=image.device)
        for axis, n in enumerate(image.shape):
            turns = (rng.randint(0, n - 1) - n // 2) / n
            steps = torch.arange(n, device=image.device).view([-1 if a == axis else 1 for a in range(3)])
            phase = phase + turns * steps
        image = image + height * torch.cos(2 * math.pi * phase)
    return image


def motion(image: Tensor, spacing: Sequence[float], rng: RandomSource) -> Tensor:
    """Parts of k-space from the head in other places: rigid movements between the lines of one axis."""
    limits = RANGES["motion"]
    count = rng.randint(*limits["movements"])
    axis = (0, 0, 1, 2)[rng.randint(0, 3)]
    step = 1 / (count + 1)
    times = [(i + 1) * step + rng.uniform(-0.3, 0.3) * step for i in range(count)]
    moves = [movement(rng) for _ in range(count)]
    heads: list[tuple[list[float], list[float]] | None] = [None, *moves]
    middle = next((i for i, time in enumerate(times) if time > 0.5), count)
    heads[0], heads[middle] = heads[middle], heads[0]  # the head at rest has k-space's centre
    lines = image.shape[axis]
    ends = [0, *(int(lines * time) for time in times), lines]
    total = torch.zeros_like(image)
    for head, first, last in zip(heads, ends[:-1], ends[1:], strict=True):
        taken = torch.zeros(lines)
        taken[first:last] = 1
        seen = rigid_motion(image, spacing, *head) if head else image
        total += along(seen, k_space(taken, image.device), axis)
    return total


def movement(rng: RandomSource) -> tuple[list[float], list[float]]:
    """Angles (degrees) and shifts (mm) about and along z, y and x: at least one of them large enough to be seen."""
    degrees, mm = RANGES["motion"]["degrees"], RANGES["motion"]["mm"]
    angles = [rng.uniform(-degrees[1], degrees[1]) for _ in range(3)]
    shifts = [rng.uniform(-mm[1], mm[1]) for _ in range(3)]
    if max(map(abs, angles)) < degrees[0] and max(map(abs, shifts)) < mm[0]:
        angles[rng.randint(0, 2)] = rng.uniform(*degrees)
    return angles, shifts


def rigid_motion(image: Tensor, spacing: Sequence[float], angles: Sequence[float], shifts: Sequence[float]) -> Tensor:
    """A scan turned about its centre and shifted; linear interpolation, zero from outside."""
    turn = torch.eye(3)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        angle = math.radians(angles[axis])
        one = torch.eye(3)
        one[i, i] = one[j, j] = math.cos(angle)
        one[i, j], one[j, i] = -math.sin(angle), math.sin(angle)
        turn = turn @ one
    half = torch.tensor([n * side / 2 for n, side in zip(image.shape, spacing, strict=True)])
    matrix = torch.cat([turn * half[None, :] / half[:, None], (torch.tensor(shifts) / half)[:, None]], dim=1)
    matrix = torch.cat([matrix[:, :3].flip(0, 1), matrix[:, 3:].flip(0)], dim=1)  # grid_sample counts x, y, z
    grid = F.affine_grid(to_device(matrix[None], image.device), [1, 1, *image.shape], align_corners=False)
    return F.grid_sample(image[None, None], grid, align_corners=False)[0, 0]
