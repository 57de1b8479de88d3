"""`mr-denoise` on noise as scanners leave it, against methods that are told how strong it is.

    pip install dipy bm4d
    python -m benchmarks.bundles.denoise_kspace --data DIR --kept scores.json

Rician noise of 5% of white, of which a share of each in-plane axis of k-space is kept and the rest is zero, so that it
is correlated between voxels; the scans are those of the people that training never saw. Non-local means is DIPY's, both
of its methods by their own defaults, told the true standard deviation or less of it (`FACTORS`): the best of all
four counts. BM4D is its authors' package, of a licence for research alone, told the true standard deviation: neither is
part of napari-mamba. Scores of the other methods are kept in the file, so that after a training only ours are new.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from napari_mamba import bundles
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.restore import measure
from napari_mamba.recipes.restore.denoise import KEPT_SHARES, KSPACE_LEVEL
from napari_mamba.recipes.restore.denoise_bundle import SIZE, restore

FACTORS = (0.8, 1.0)
"""What non-local means is told, as a multiple of the true standard deviation."""
Method = Callable[[np.ndarray, float, bool], np.ndarray]


def methods() -> dict[str, Method]:
    """Those that are installed, each told the true standard deviation."""
    found: dict[str, Method] = {}
    if find_spec("dipy"):
        for name, method in (("nlm", measure.non_local_means), ("blockwise", measure.blockwise_non_local_means)):
            for factor in FACTORS:
                found[f"{name} {factor:g}"] = partial(_told, method, factor)
    if find_spec("bm4d"):
        found["bm4d"] = measure.bm4d
    if not found:
        raise SystemExit("there is nothing to compare with: pip install dipy bm4d")
    return found


def _told(method: Method, factor: float, image: np.ndarray, sigma: float, rician: bool) -> np.ndarray:
    return method(image, factor * sigma, rician)


def noisy(case: measure.Case, share: float) -> tuple[np.ndarray, measure.Case]:
    """A case with noise, and what would be right."""
    if share == 1:
        return measure.noisy(case, KSPACE_LEVEL, rician=True), case
    return measure.partly_sampled(case, share, KSPACE_LEVEL)


def best_of(scores: Mapping[str, list[float]], family: str) -> tuple[str, float]:
    """The setting of a method whose mean over scans is the best, and that mean.

    >>> best_of({"nlm 1": [1.0, 2.0], "nlm 2": [3.0, 2.0], "bm4d": [9.0, 9.0]}, "nlm")
    ('nlm 2', 2.5)
    """
    means = {name: float(np.mean(values)) for name, values in scores.items() if name.startswith(family)}
    name = max(means, key=lambda one: means[one])
    return name, means[name]


def row(share: float, scores: Mapping[str, list[float]]) -> str:
    """A line of the table: mean PSNR of each, and ours over the better of the others."""
    means = {family: best_of(scores, family)[1] for family in families(scores)}
    others = max(value for family, value in means.items() if family not in ("noisy", "mr-denoise"))
    cells = [f"{value:.2f}" for value in means.values()]
    return f"| {share:g} | {' | '.join(cells)} | {means['mr-denoise'] - others:+.2f} |"


def families(scores: Mapping[str, list[float]]) -> list[str]:
    """The table's columns."""
    known = ("noisy", "nlm", "blockwise", "bm4d", "mr-denoise")
    return [family for family in known if any(name.startswith(family) for name in scores)]


def main() -> None:
    """A table of PSNR in dB, a line for each share of k-space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="mr-denoise")
    parser.add_argument("--kept", type=Path, help="a JSON file of the other methods' scores")
    parser.add_argument("--size", type=int, nargs=3, default=SIZE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    bundle, store, others = bundles.load(asked.bundle), measure.ScoreCache(asked.kept), methods()
    scans = measure.cases(asked.data, tuple(asked.size))
    lines = []
    for share in KEPT_SHARES:
        scores: dict[str, list[float]] = {}
        for case in scans:
            image, true = noisy(case, share)
            made = {"noisy": measure.compare(image, true.truth, case.peak)}
            for name, method in others.items():
                key = f"{name} {case.source} {share:g} {'x'.join(map(str, case.truth.shape))}"
                made[name] = store.get(key, partial(_score, method, image, true))
            answer = restore(bundle, case, image, RunOptions(device=asked.device))
            made["mr-denoise"] = measure.compare(answer, true.truth, case.peak)
            for name, one in made.items():
                scores.setdefault(name, []).append(one["psnr"])
            print(f"{case.source} {share:g}:", {k: round(v["psnr"], 2) for k, v in made.items()}, flush=True)
        lines.append(row(share, scores))
        best = [best_of(scores, family)[0] for family in families(scores)]
    print(f"| k-space kept | {' | '.join(families(scores))} | over the better |")
    print(f"|{' --- |' * (len(families(scores)) + 2)}")
    print("\n".join(lines))
    print(f"{len(scans)} scans of {len({case.person for case in scans})} people; settings at the last line: {best}")


def _score(method: Method, image: np.ndarray, case: measure.Case) -> measure.Scores:
    return measure.compare(method(image, KSPACE_LEVEL * case.peak, True), case.truth, case.peak)


if __name__ == "__main__":
    main()
