"""From noise to an image: the sampler of denoising diffusion (Ho et al., arXiv:2006.11239, algorithm 2).

With the choices of MD-Dose's authors, read in github.com/LinjieFu-U/mamba_dose, `diffusion.py` and `test.py`: the guess
at the clean image is clamped at every step, the posterior's own variance is used though they name it "fixedlarge", and
the first image is noise brought to 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_mamba.errors import InputError


@dataclass(frozen=True)
class Step:
    """What a sampler has after `done` of `total` steps: the image (B, C, *spatial), still noisy but for the last."""

    done: int
    total: int
    image: Tensor


@dataclass(frozen=True)
class Schedule:
    """The noise that each step adds: `beta_1` to `beta_T`, evenly over `T` steps.

    Examples
    --------
    >>> Schedule(T=4).betas().tolist()[-1]
    0.02
    """

    beta_1: float = 1e-4
    beta_T: float = 0.02
    T: int = 1000

    def __post_init__(self) -> None:
        if self.T < 2 or not 0 < self.beta_1 <= self.beta_T < 1:
            raise InputError(
                f"a schedule needs two steps or more, and 0 < beta_1 <= beta_T < 1, not {self.T} steps from "
                f"{self.beta_1:g} to {self.beta_T:g}"
            )

    def betas(self) -> Tensor:
        """(T,) float64; spaced in float32, as the authors do."""
        return torch.linspace(self.beta_1, self.beta_T, self.T).double()


def first_noise(shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Normal noise of a shape, brought to 0 to 1 over all of it, as MD-Dose's authors begin.

    >>> float(first_noise((1, 1, 8, 8)).amax())
    1.0
    """
    noise = torch.randn(tuple(shape), generator=generator)
    return (noise - noise.min()) / (noise.max() - noise.min())


def _noise(like: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    if isinstance(generator, Sequence):
        return torch.stack([torch.randn(like.shape[1:], generator=one, dtype=like.dtype) for one in generator])
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


@torch.no_grad()
def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    schedule: Schedule | None = None,
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    limits: tuple[float, float] | None = (0.0, 1.0),
) -> Iterator[Step]:
    """Take the noise off `start` step by step.

    A generator: each step is told as it is done, and who stops asking has cancelled.

    Parameters
    ----------
    denoise : callable
        From a noisy image and the time (B,) int64 to the noise in it: `lambda x, t: net(torch.cat([x, ct], 1), t)`.
    start : Tensor
        (B, C, *spatial), such as `first_noise` makes.
    schedule : Schedule, optional
        MD-Dose's, 1000 steps, unless given.
    generator : torch.Generator or a sequence of them, optional
        Of the noise that steps add, on the CPU, so that a seed gives the same on every device; one for each image of
        the batch, and it gives what that image would be by itself.
    limits : (float, float), optional
        To which the guess at the clean image is clamped; None: not at all.

    Yields
    ------
    Step
        After every step; the last one's image is the result.

    Examples
    --------
    >>> for step in sample(lambda x, t: torch.zeros_like(x), torch.zeros(1, 1, 4, 4), Schedule(T=3)):
    ...     print(step.done, "of", step.total)
    1 of 3
    2 of 3
    3 of 3
    """
    schedule = Schedule() if schedule is None else schedule
    betas = schedule.betas()
    kept = torch.cumprod(1 - betas, dim=0)  # of the clean image's variance
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    variance = betas * (1 - before) / (1 - kept)
    clean_share, noisy_share = before.sqrt() * betas / (1 - kept), (1 - betas).sqrt() * (1 - before) / (1 - kept)
    x = start
    for time in reversed(range(schedule.T)):
        noise = denoise(x, torch.full((len(x),), time, dtype=torch.int64, device=x.device))
        clean = x / float(kept[time].sqrt()) - noise * float((1 / kept[time] - 1).sqrt())
        clean = clean if limits is None else clean.clamp(*limits)
        x = float(clean_share[time]) * clean + float(noisy_share[time]) * x
        if time > 0:
            fresh = _noise(x, generator).to(x.device)
            x = x + float(variance[time].sqrt()) * fresh
        yield Step(schedule.T - time, schedule.T, x)
