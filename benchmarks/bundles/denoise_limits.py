"""Where `mr-denoise` ends, as its card tells: noise that scans have themselves, mirrored copies, skull-stripping.

    python -m benchmarks.bundles.denoise_limits --data DIR
    python -m benchmarks.bundles.denoise_limits --data DIR --best-strength
    python -m benchmarks.bundles.denoise_limits --data DIR --told

DIR holds `native_mr` and `stroke_mr`; the scans are those of the people that training never saw.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from napari_mamba import bundles
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.nn.descriptors.noise import estimate_noise_std, log_noise_channel
from napari_mamba.recipes.restore import measure
from napari_mamba.recipes.restore.denoise import KEPT_SHARES
from napari_mamba.recipes.restore.denoise_bundle import SIZE, restore

LEVEL = 0.05
"""Rician noise of the last two columns, as a share of white."""
BRIGHT = 0.25
"""Share of white above which smoothed tissue is taken for the head's inside."""


def cut_out(case: measure.Case) -> np.ndarray:
    """Where a mask such as skull-stripping leaves tissue, cutting through some of it, (Z, Y, X) bool."""
    bright = ndimage.gaussian_filter(case.truth, 1.5) > BRIGHT * case.peak
    pieces, _ = ndimage.label(ndimage.binary_opening(bright, iterations=3))
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return ndimage.binary_erosion(ndimage.binary_fill_holes(largest), iterations=2)


def row(case: measure.Case, bundle: Bundle, options: RunOptions) -> list[str]:
    """What is removed of a scan as it is (% of white), and dB gained by mirrored copies and by zeros outside a mask.

    The last is measured inside of the mask.
    """
    removed = 100 * float((case.truth - restore(bundle, case, case.truth, options)).std()) / case.peak
    noisy, kept = measure.noisy(case, LEVEL, rician=True), cut_out(case)
    plain, mirrored, masked = (
        restore(bundle, case, noisy, options),
        restore(bundle, case, noisy, replace(options, mirror=True)),
        restore(bundle, case, np.where(kept, noisy, 0).astype(np.float32), options),
    )
    copies = psnr(mirrored, case) - psnr(plain, case)
    return [
        case.source,
        f"{removed:.2f}",
        f"{copies:+.2f}",
        f"{psnr(masked, case, kept) - psnr(plain, case, kept):+.2f}",
    ]


def best_strength(case: measure.Case, bundle: Bundle, options: RunOptions, share: float) -> tuple[float, float]:
    """The strength that is nearest to the truth, which a user cannot know, and the dB that it would add."""
    noisy, true = measure.noisy(case, LEVEL, rician=True), case
    if share < 1:
        noisy, true = measure.partly_sampled(case, share, LEVEL)
    change = (restore(bundle, case, noisy, options) - noisy).astype(np.float64)
    best = float((change * (true.truth - noisy)).sum() / np.square(change).sum())
    return best, psnr(noisy + best * change, true) - psnr(noisy + change, true)


def print_best_strengths(data: Path, bundle: Bundle, options: RunOptions) -> None:
    """A line each scan: what is kept of k-space from column to column."""
    print(f"| scan | {' | '.join(f'{share:g} of k-space' for share in KEPT_SHARES)} |")
    print("|" + " --- |" * (len(KEPT_SHARES) + 1))
    for case in measure.cases(data, SIZE):
        found = [best_strength(case, bundle, options, share) for share in KEPT_SHARES]
        print(f"| {case.source} | {' | '.join(f'{best:.0%}: {gain:+.2f} dB' for best, gain in found)} |", flush=True)


def told(case: measure.Case, bundle: Bundle, share: float) -> tuple[float, float]:
    """What the network's own estimate of the noise gives, in dB, and what the true strength in its place would add.

    As BM4D and non-local means are told it. In one tile and without the preparation's cropping, on the CPU.
    """
    noisy, true = measure.noisy(case, LEVEL, rician=True), case
    if share < 1:
        noisy, true = measure.partly_sampled(case, share, LEVEL)
    network = bundle.networks()[0].eval().float()
    white = float(np.percentile(noisy, 99.9))
    image = torch.from_numpy(noisy / white)[None, None].float()
    found = []
    with torch.inference_mode():
        own = estimate_noise_std(image)
        for noise in (own, torch.full_like(own, LEVEL * case.peak / white)):
            answer = image + noise * network.change(torch.cat([image, log_noise_channel(noise)], dim=1))
            found.append(psnr(answer[0, 0].numpy() * white, true))
    return found[0], found[1] - found[0]


def print_told(data: Path, bundle: Bundle) -> None:
    """A line each scan: what is kept of k-space from column to column."""
    print(f"| scan | {' | '.join(f'{share:g} of k-space' for share in KEPT_SHARES)} |")
    print("|" + " --- |" * (len(KEPT_SHARES) + 1))
    for case in measure.cases(data, SIZE):
        found = [told(case, bundle, share) for share in KEPT_SHARES]
        print(f"| {case.source} | {' | '.join(f'{own:.2f} dB, {gain:+.2f}' for own, gain in found)} |", flush=True)


def psnr(answer: np.ndarray, case: measure.Case, where: np.ndarray | None = None) -> float:
    """Of an answer in dB, everywhere or where told."""
    wrong = np.square(answer - case.truth)
    return float(10 * np.log10(case.peak**2 / (wrong if where is None else wrong[where]).mean()))


def main() -> None:
    """A line each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="mr-denoise")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--told", action="store_true", help="what being told the noise's strength would add, alone")
    parser.add_argument("--best-strength", action="store_true", help="what the best strength of all would add, alone")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    bundle = bundles.load(asked.bundle)
    if asked.told:
        print_told(asked.data, bundle)
        return
    if asked.best_strength:
        print_best_strengths(asked.data, bundle, RunOptions(device=asked.device))
        return
    print("| scan | removed of it as it is, % of white | mirrored copies, dB | zeros outside a mask, dB |")
    print("| --- | --- | --- | --- |")
    for case in measure.cases(asked.data, SIZE):
        print(f"| {' | '.join(row(case, bundle, RunOptions(device=asked.device)))} |", flush=True)


if __name__ == "__main__":
    main()
