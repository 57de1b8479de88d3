"""What k-space tells of a scan's faults, in plain PyTorch: peaks, echoes, the floor of noise, the loss of detail.

Many artefacts of MR are simple where they arise and hidden in the image: a spike is one bright point of k-space, a
ghost is an echo, which the cepstrum (the transform of the logarithm of a spectrum; Bogert, Healy and Tukey, 1963) turns
into one point as well, noise is a floor, blur a steep descent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast

RINGS, CEPSTRUM_PEAKS = 12, 3
RANKS = (0, 2, 8, 18, 32, 50)
"""Of the peaks that are told: a spike has two points in the spectrum's half, with what the window spreads."""
SIDE = 8
SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
LEAST = 1e-6
MAX_DEVIATIONS = 6.0
"""Deviations from the mean, at which a descriptor is cut off: what training has not seen must not decide alone."""


def describe(x: Tensor) -> Tensor:
    """Descriptors (B, K) of scans (B, 1, Z, Y, X) in slices across z, of any brightness and contrast.

    Of the power in slices its fall over rings of frequency, and how far its highest points stand above their
    surroundings; along each axis the echoes and steps of the cepstrum; quantiles over small blocks of what their smooth
    part leaves, of their mean and contrast; and how a polynomial fits the head's brightness.
    """
    image = x[:, 0].float()
    low = image.flatten(1).amin(1)[:, None, None, None]
    image = image - low
    image = image / image.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-6)
    return torch.cat([_power(image), *[_echoes(image, axis) for axis in (1, 2, 3)], _blocks(image)], dim=1)


def _power(image: Tensor) -> Tensor:
    """The power of slices (B, Z, Y, X): its fall over rings of frequency, and its peaks."""
    window = [torch.hann_window(n, periodic=False, device=image.device) for n in image.shape[2:]]
    spectrum = torch.fft.rfft2(image * window[0][:, None] * window[1])
    power = (spectrum.abs().square().mean(1) + 1e-9).log()  # (B, Y, X // 2 + 1)
    fy = torch.fft.fftfreq(image.shape[2], device=image.device)[:, None]
    fx = torch.fft.rfftfreq(image.shape[3], device=image.device)
    radius = ((fy.square() + fx.square()).sqrt() * (2 * RINGS)).long().clamp(max=RINGS)
    rings = torch.stack([power[:, radius == ring].mean(1) for ring in range(RINGS + 1)], dim=1)
    peaks = _above(power, radius > 0)
    return torch.cat([rings - rings[:, :1], rings.diff(dim=1), peaks], dim=1)


def _above(power: Tensor, where: Tensor) -> Tensor:
    """How far some of the highest points of (B, Y, X) stand above the mean of what is near, also in deviations."""
    excess = power - _near(power)
    excess = excess.masked_fill(~where, 0.0)
    deviation = excess.flatten(1).std(1, keepdim=True)
    top = excess.flatten(1).topk(RANKS[-1] + 1, dim=1).values[:, list(RANKS)]
    return torch.cat([top, top / deviation.clamp(min=LEAST), deviation], dim=1)


def _near(power: Tensor, reach: int = 4) -> Tensor:
    around = F.pad(power[:, None], (reach,) * 4, mode="reflect")
    return F.avg_pool2d(around, 2 * reach + 1, stride=1)[:, 0]


def _echoes(image: Tensor, axis: int) -> Tensor:
    """The cepstra along an axis of (B, Z, Y, X), of its lines one by one and of their mean power."""
    lines = image.movedim(axis, -1)
    power = (torch.fft.rfft(lines).abs().square() + 1e-4).flatten(1, 2)
    energy = lines.square().sum(-1).flatten(1)
    bright = (energy > 0.02 * energy.amax(1, keepdim=True)).float()[..., None]
    one_by_one = (power.log() * bright).sum(1) / bright.sum(1).clamp(min=1)
    return torch.cat([_cepstrum(one_by_one), _cepstrum(power.mean(1).log())], dim=1)


def _cepstrum(profile: Tensor) -> Tensor:
    """Of the logarithm of power over frequency (B, N): its echoes, its roughness, its steps."""
    rest, size = _detrended(profile), profile.shape[1]
    window = torch.hann_window(size, periodic=False, device=profile.device)
    echo = torch.fft.rfft(rest * window).abs()[:, 2:] / size**0.5
    top, mean = echo.topk(CEPSTRUM_PEAKS, dim=1).values, echo.mean(1, keepdim=True)
    middle = echo.median(1, keepdim=True).values.clamp(min=LEAST)
    steps = rest.diff(dim=1).abs()  # where the head moved between two lines
    return torch.cat(
        [
            top.clamp(min=LEAST).log(), mean.clamp(min=LEAST).log(), (top[:, :1] / middle).clamp(min=LEAST).log(),
            rest[:, : size // 4].std(1, keepdim=True), rest[:, size // 4 :].std(1, keepdim=True),
            steps.amax(1, keepdim=True), steps.mean(1, keepdim=True),
        ],
        dim=1,
    )  # fmt: skip


def _detrended(profile: Tensor, reach: int = 5) -> Tensor:
    """Rows (B, N) less their running mean."""
    around = F.pad(profile[:, None], (reach, reach), mode="replicate")
    return profile - F.avg_pool1d(around, 2 * reach + 1, stride=1)[:, 0]


def _blocks(image: Tensor) -> Tensor:
    """Quantiles over small blocks of slices: of their roughness, their mean, their contrast; and the head's shading."""
    rough = image - F.avg_pool2d(F.pad(image, (1,) * 4, mode="replicate"), 3, stride=1)
    mean, fine = F.avg_pool2d(image, SIDE), F.avg_pool2d(rough.square(), SIDE).sqrt()
    contrast = F.avg_pool2d((image - F.interpolate(mean, scale_factor=SIDE)).square(), SIDE).sqrt()
    head = mean > 0.5 * mean.flatten(1).mean(1)[:, None, None, None]
    shares = torch.tensor(SHARES, device=image.device)
    found = [
        torch.quantile(values.flatten(1), shares, dim=1).T
        for values in (fine, mean, contrast, fine / (contrast + 1e-3))
    ]
    found += [_mean(fine, ~head)[:, None], _mean(fine, head)[:, None], _mean(mean, ~head)[:, None]]
    return torch.cat([torch.cat(found, dim=1).clamp(min=1e-4).log(), _shading(mean.clamp(min=1e-3).log(), head)], dim=1)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).flatten(1).sum(1) / where.flatten(1).sum(1).clamp(min=1)


def _shading(brightness: Tensor, head: Tensor) -> Tensor:
    """How a polynomial of third order fits the logarithm of brightness (B, Z, Y, X) over the head, order by order.

    The deviations of its linear, quadratic and cubic part, of the whole, and of what is left, and the share explained.
    """
    places = [torch.linspace(-1, 1, n, device=brightness.device) for n in brightness.shape[1:]]
    z, y, x = (place.flatten() for place in torch.meshgrid(*places, indexing="ij"))
    powers = [(a, b, c) for a in range(4) for b in range(4 - a) for c in range(4 - a - b) if a + b + c]
    powers.sort(key=sum)
    terms = torch.stack([z**a * y**b * x**c for a, b, c in powers], dim=1)
    weight = head.flatten(1).float()
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    values = brightness.flatten(1)
    values = values - (weight * values).sum(1, keepdim=True)
    centred = terms - (weight @ terms)[:, None]
    normal = torch.einsum("bv,bvi,bvj->bij", weight, centred, centred)
    normal = normal + 1e-3 * torch.eye(len(powers), device=normal.device)
    right = torch.einsum("bv,bvi,bv->bi", weight, centred, values)
    factors = torch.linalg.solve(normal, right)
    orders, parts = [sum(power) for power in powers], []
    for order in (1, 2, 3):
        chosen = [i for i, own in enumerate(orders) if own == order]
        parts.append(torch.einsum("bvi,bi->bv", centred[:, :, chosen], factors[:, chosen]))
    whole = parts[0] + parts[1] + parts[2]
    deviations = [(weight * part.square()).sum(1).sqrt() for part in (*parts, whole, values - whole, values)]
    return torch.stack([*deviations, deviations[3] / deviations[5].clamp(min=LEAST)], dim=1)


class Spectrum(Float32Module):
    """Logits (B, K) of a perceptron over the standardised descriptors of a scan (B, 1, Z, Y, X).

    It and the descriptors' mean and deviation are fitted by themselves (`napari_mamba.recipes.quality.kspace`), not by
    gradient steps through the network. One hidden layer, since a scan is clean where none of many signs is there.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, number_classes: int, hidden: int):
        super().__init__()
        size = count()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.first, self.last = nn.Linear(size, hidden), nn.Linear(hidden, number_classes)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad(), without_autocast(x):
            return self.classify(describe(x).to(self.mean.dtype))

    def classify(self, table: Tensor) -> Tensor:
        """Logits (B, K) from descriptors (B, n)."""
        return self.last(F.relu(self.first(self.standardised(table))))

    def standardised(self, table: Tensor) -> Tensor:
        """Descriptors (B, n) in deviations from their mean, cut off at ± `MAX_DEVIATIONS`."""
        return ((table - self.mean) / self.deviation).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)


def count() -> int:
    """How many descriptors there are."""
    power = 2 * RINGS + 1 + 2 * len(RANKS) + 1
    return power + 3 * 2 * (CEPSTRUM_PEAKS + 6) + 4 * len(SHARES) + 3 + 7
