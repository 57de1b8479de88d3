"""How near a restored volume is to the truth, and what others make of the same input: NLM, BM4D, cubic splines."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from napari_mamba.errors import InputError
from napari_mamba.recipes.restore import data
from napari_mamba.recipes.restore.rician import signal_of_mean, signal_of_stable, stabilise
from napari_mamba.volume import Volume

Scores = dict[str, float]


def compare(restored: np.ndarray, truth: np.ndarray, peak: float) -> Scores:
    """PSNR in dB and SSIM (Wang et al., 2004; windows of 11 voxels) of two volumes (Z, Y, X) whose white is `peak`.

    >>> a = np.zeros((12, 12, 12))
    >>> round(compare(a + 0.1, a, 1.0)["psnr"], 6)
    20.0
    """
    error = float(np.mean((np.asarray(restored, float) - truth) ** 2))
    psnr = float(10 * np.log10(peak**2 / max(error, 1e-20)))
    return {"psnr": psnr, "ssim": similarity(restored / peak, truth / peak)}


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two volumes whose white is 1, in Gaussian windows of 11 voxels and sigma 1.5, where they fit in.

    Axis by axis: a window of 11 x 11 x 11 weights takes seconds a volume.
    """
    width = min(11, *a.shape)
    weights = np.exp(-0.5 * ((np.arange(width) - (width - 1) / 2) / 1.5) ** 2)
    weights /= weights.sum()

    def windowed(values: np.ndarray) -> np.ndarray:
        for axis in range(3):
            before = (width - 1) // 2
            inside = [slice(None)] * 3
            inside[axis] = slice(before, before + values.shape[axis] - width + 1)
            values = ndimage.correlate1d(values, weights, axis, origin=-1 if width % 2 == 0 else 0)[tuple(inside)]
        return values

    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = windowed(a), windowed(b)
    variance = windowed(a * a) - mean_a**2 + windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
    return float(np.mean(light * (2 * covariance + 9e-4) / (variance + 9e-4)))


@dataclass(frozen=True, eq=False)
class Case:
    """A held-out scan's middle: `truth` (Z, Y, X) float32 in the file's units, `peak` the scan's 99.9th percentile."""

    source: str
    person: str
    truth: np.ndarray
    peak: float
    affine: np.ndarray

    def volume(self, values: np.ndarray) -> Volume:
        """Other values on the case's grid."""
        return Volume(np.asarray(values, np.float32)[None], self.affine, name=self.source)


def cases(folder: Path, size: tuple[int, int, int]) -> list[Case]:
    """The middle of each scan of the test people's first visit, at most `size` voxels.

    Raises
    ------
    InputError
        If the folder holds none of theirs, or is the prepared file, which has no test people.
    """
    from napari_mamba import io

    if not Path(folder).is_dir():
        raise InputError(f"{folder} holds no test people: give the folder of the scans themselves")
    found = []
    for file in data.files(folder, ("test",)):
        if "study2" in file.name:
            continue
        volume = io.read(file)
        image = np.asarray(volume.data)[0].astype(np.float32)
        peak = float(np.percentile(image, 99.9))
        box = data.head_box(image, peak)
        place = tuple(_middle(s.indices(n), want) for s, n, want in zip(box, image.shape, size, strict=True))
        affine = np.array(volume.affine)
        affine[:3, 3] += affine[:3, :3] @ [s.start for s in place]
        who = data.person(file, Path(folder))
        found.append(Case(file.relative_to(folder).as_posix(), who, image[place], peak, affine))
    return found


def _middle(bounds: tuple[int, int, int], want: int) -> slice:
    first, last, _ = bounds
    start = first + max(last - first - want, 0) // 2
    return slice(start, min(start + want, last))


def noisy(case: Case, level: float, rician: bool) -> np.ndarray:
    """The case with noise of `level` times its peak, always the same for the same scan, level and kind."""
    seed = sum(map(ord, case.source)) * 1000 + round(1000 * level) + 500 * rician
    random = np.random.RandomState(seed)
    real = case.truth + level * case.peak * random.standard_normal(case.truth.shape)
    if not rician:
        return real.astype(np.float32)
    return np.hypot(real, level * case.peak * random.standard_normal(case.truth.shape)).astype(np.float32)


def partly_sampled(case: Case, share: float, level: float) -> tuple[np.ndarray, Case]:
    """The case with a share of each in-plane axis of k-space kept: with Rician noise of `level` of its peak, and not.

    The noise has that strength in the image, filled up with zeros as it is; always the same for the same scan.
    """
    import torch

    from napari_mamba.recipes.restore.denoise import partly_sampled as sampled

    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
    across = int(np.argmax(spacing)) if spacing.max() >= 1.2 * spacing.min() else 0
    draw = torch.Generator().manual_seed(sum(map(ord, case.source)) * 1000 + round(1000 * share))
    clean = torch.from_numpy(case.truth / np.float32(case.peak))[None, None]
    given, truth = (t[0, 0].numpy() * np.float32(case.peak) for t in sampled(clean, share, level, draw, across))
    return given, replace(case, truth=truth)


def non_local_means(image: np.ndarray, sigma: float, rician: bool) -> np.ndarray:
    """Non-local means (Descoteaux et al., MICCAI 2008; Coupe et al., IEEE TMI 27, 2008) told the true sigma.

    DIPY's method "classic", by its own defaults: patches of 3 and a search window of 11 voxels a side.
    """
    from dipy.denoise.nlmeans import nlmeans

    return nlmeans(image.astype(np.float64), sigma=sigma, rician=rician, method="classic")


def blockwise_non_local_means(image: np.ndarray, sigma: float, rician: bool) -> np.ndarray:
    """Blockwise non-local means (Coupe et al., IEEE TMI 27, 2008, and MIDAS Journal 2012) told the true sigma.

    DIPY's method "blockwise", by its own defaults: blocks of 3 and a search window of 5 voxels a side. The window of
    "classic" with these blocks gives 1 to 5 dB less.
    """
    from dipy.denoise.nlmeans import nlmeans

    return nlmeans(image.astype(np.float64), sigma=sigma, rician=rician, method="blockwise")


def bm4d(image: np.ndarray, sigma: float, rician: bool) -> np.ndarray:
    """BM4D (Maggioni et al., IEEE TIP 22, 2013) as its authors' package has it, told the true sigma.

    The package knows Gaussian noise; the mean of Rician noise is taken out of its answer.
    """
    from bm4d import bm4d as authors

    restored = authors(image.astype(np.float64), sigma)
    return sigma * signal_of_mean(restored / sigma) if rician else restored


def bm4d_stabilised(image: np.ndarray, sigma: float, rician: bool) -> np.ndarray:
    """BM4D of Rician noise as its authors do it, between a variance stabilisation and its unbiased inverse."""
    from bm4d import bm4d as authors

    if not rician:
        return bm4d(image, sigma, rician)
    return sigma * signal_of_stable(authors(stabilise(image / sigma).astype(np.float64), 1.0))


class ScoreCache:
    """Scores of slow methods, in a JSON file, so that they are measured once; in memory alone without a file."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = Path(file) if file else None
        self._scores: dict[str, Scores] = {}
        if self.file and self.file.exists():
            self._scores = json.loads(self.file.read_text())

    def get(self, key: str, measure: Callable[[], Scores]) -> Scores:
        """The scores under `key`, measured if they are not there."""
        if key not in self._scores:
            self._scores[key] = measure()
            if self.file:
                self.file.write_text(json.dumps(self._scores, indent=1))
        return self._scores[key]
