"""Tokens of unusual norm in empty background, which a network uses as a notebook and which spoil every map.

Vision Transformers, and Mamba networks more so (Wang et al., Mamba-R, arXiv:2405.14858), keep whole-image facts in
tokens of places where nothing is seen. Air in a scan is such a place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.explain.recorded.recording import LayerScan

UNUSUAL = 6.0
"""Times the median absolute deviation above the median from which on a norm is unusual."""
FEW = 0.005
"""Share of the background's tokens from which on the map is called corrupt."""


@dataclass
class UnusualTokens:
    """Norms of a layer's tokens (*grid), which of them are unusual and in background, and a sentence, or ""."""

    norms: np.ndarray
    unusual: np.ndarray
    background: np.ndarray
    sentence: str

    @property
    def share(self) -> float:
        """Of the background's tokens."""
        return float(self.unusual.sum() / max(self.background.sum(), 1))


def unusual_tokens(scan: LayerScan, image: Tensor) -> UnusualTokens:
    """Find tokens of unusual norm where the image is empty.

    Parameters
    ----------
    scan : LayerScan
        Its tokens are what enters the state spaces.
    image : (1, C, *spatial)
        The tile; background is where it is flat, and as dark as its darkest tenth.
    """
    grid = scan.need_grid()
    first = scan.along(0)
    norms = scan.map([path.u.norm(dim=1) for path in first], first)
    background = empty_cells(image, grid)
    median = np.median(norms)
    deviation = 1.4826 * np.median(np.abs(norms - median))
    unusual = (norms > median + UNUSUAL * max(float(deviation), 1e-6 * float(abs(median)))) & background
    share = unusual.sum() / max(background.sum(), 1)
    sentence = ""
    if share > FEW:
        sentence = (
            f"{int(unusual.sum())} of {scan.label}'s tokens in empty background have an unusually large norm: maps of "
            "this layer say little about the image there."
        )
    return UnusualTokens(norms, unusual, background, sentence)


def empty_cells(image: Tensor, grid: tuple[int, ...]) -> np.ndarray:
    """The cells of a grid (*grid) in which an image (1, C, *spatial) is flat and dark."""
    x = image.float().mean(1, keepdim=True)
    pool: Callable = F.adaptive_avg_pool3d if x.ndim == 5 else F.adaptive_avg_pool2d
    mean = pool(x, grid)
    spread = (pool(x.square(), grid) - mean.square()).clamp(min=0).sqrt()
    low, high = torch.quantile(x.flatten()[:: max(1, x.numel() // 100_000)], torch.tensor([0.1, 0.9], device=x.device))
    near = 0.1 * (high - low).clamp(min=1e-6)
    return ((mean <= low + near) & (spread <= near))[0, 0].cpu().numpy()
