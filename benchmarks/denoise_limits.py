"""Where `mr-denoise` ends, as its card tells: noise that scans have themselves, mirrored copies, zeros about an image.

    python benchmarks/denoise_limits.py --data DIR

DIR holds `native_mr` and `stroke_mr`; the scans are those of the people that training never saw.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from napari_mamba import bundles, engine
from napari_mamba.bundles import Bundle
from napari_mamba.training.restore import measure
from napari_mamba.training.restore.denoise_bundle import SIZE

LEVEL = 0.05
"""Rician noise of the last two columns, as a share of white."""
MARGIN = ((10, 10), (20, 20), (20, 20))
"""Zeros about an image, voxels along z, y, x."""


def restored(case: measure.Case, image: np.ndarray, bundle: Bundle, device: str, mirror: bool = False) -> np.ndarray:
    """The bundle's answer (Z, Y, X) to an image on the grid of a case."""
    result = engine.run_to_end(case.volume(image), bundle, engine.RunOptions(device=device, mirror=mirror))
    assert result.image is not None  # of a restoration that was not cancelled
    return np.asarray(result.image.data)[0]


def row(case: measure.Case, bundle: Bundle, device: str) -> list[str]:
    """What is removed of a scan as it is (% of white), and dB gained by mirrored copies and by zeros about it."""
    removed = 100 * float((case.truth - restored(case, case.truth, bundle, device)).std()) / case.peak
    noisy = measure.noisy(case, LEVEL, rician=True)
    inside = tuple(slice(before, -after) for before, after in MARGIN)
    answers = (
        restored(case, noisy, bundle, device),
        restored(case, noisy, bundle, device, mirror=True),
        restored(case, np.pad(noisy, MARGIN), bundle, device)[inside],
    )
    plain, mirrored, padded = (measure.compare(answer, case.truth, case.peak)["psnr"] for answer in answers)
    return [case.source, f"{removed:.2f}", f"{mirrored - plain:+.2f}", f"{padded - plain:+.2f}"]


def main() -> None:
    """A line each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="mr-denoise")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    bundle = bundles.load(asked.bundle)
    print("| scan | removed of it as it is, % of white | mirrored copies, dB | zeros about it, dB |")
    print("| --- | --- | --- | --- |")
    for case in measure.cases(asked.data, SIZE):
        print(f"| {' | '.join(row(case, bundle, asked.device))} |", flush=True)


if __name__ == "__main__":
    main()
