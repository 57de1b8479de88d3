"""The bundle `mr-denoise`: its description, its card, and its numbers on held-out people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from napari_mamba import engine
from napari_mamba.bundles import Bundle, BundleSpec, Channel, Network, Tile
from napari_mamba.engine import RunOptions
from napari_mamba.errors import InputError
from napari_mamba.recipes.measurement import Measurement, OnCase, count_of, measured_on
from napari_mamba.recipes.restore import cards, data, measure, report
from napari_mamba.recipes.restore.denoise import KEPT_SHARES, KSPACE_LEVEL, LEVELS, SCALED, Denoise
from napari_mamba.recipes.restore.task import SCANS
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.export import export_averaged

SIZE = (20, 112, 112)
"""Voxels of a held-out scan's middle that methods are compared on: BM4D takes half a minute for it."""

METHODS = {
    "input": "noisy",
    "nlm": "non-local means",
    "nlm-blockwise": "the same, blockwise",
    "bm4d": "BM4D",
    "bm4d-vst": "BM4D, Rician noise stabilised",
    "mr-denoise": "mr-denoise",
}
USE = (
    "Research on MR magnitude images of the head with thermal noise, of any contrast and voxel size: to look at, or "
    "before segmentation and registration. Not for quantitative maps, diffusion-weighted series (whose noise carries "
    "the estimate), CT, or images that were filtered before."
)


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="mr-denoise",
        version="1.3.2",
        title="Denoise MR, blind to the noise's level",
        task="restoration",
        network=Network("voxel_mamba_unet", {**SCALED, "scan": SCANS[Denoise.variants[0]]}),
        channels=(Channel("MR", "MR"),),
        preparation=(
            {"step": "crop_nonzero"},  # zeros about an image are no part of it: they would lower its white
            {
                "step": "normalise",
                "schemes": [{"scheme": "percentile", "lower": None, "upper": 99.9, "clip": False}],
            },
        ),
        tile=Tile((48, 128, 128), overlap=0.125, mirror_axes=(0, 1, 2), divisor=(4, 4, 4), fit_tiles=True),
        activation="none",
        description="Removes Rician and Gaussian noise of any strength up to a fifth of the image's white, in 3D.",
        authors="The napari-mamba developers",
        copyright="Weights: CC BY 4.0",
        licence="CC-BY-4.0",
        data_source=data.ATTRIBUTION,
        intended_use=f"{USE} Not for clinical use.",
        changelog={
            "1.2.1": "Images that are no head in MR are doubted; the weights are the same.",
            "1.3.0": "Learnt the noise that scans have, correlated where a part of k-space is missing; a little less "
            "of white noise is removed.",
            "1.3.1": "CTs kept in a window (28 of 32 in the test, none of 8 from elsewhere) and label maps are "
            "doubted; the weights are the same.",
            "1.3.2": "CTs kept in a window (30 of 32 in the test, 8 of 8 from elsewhere), PET and heads twice as large "
            "are doubted; the weights are the same.",
        },
        references=(
            "Guo et al.: MambaIR, arXiv:2402.15648",
            "Gudbjartsson and Patz: The Rician distribution of noisy MRI data, Magn Reson Med 34:910, 1995",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


def evaluate(
    recipe: Recipe, bundle: Bundle, options: RunOptions, on_case: OnCase, *, kept: Path | None = None
) -> Measurement:
    """PSNR and SSIM against non-local means and BM4D, both told the true noise, on people that training never saw.

    Parameters
    ----------
    recipe : Recipe
        Over the folder of scans.
    bundle : Bundle
    options : RunOptions
    on_case : callable
        Called with each case's name and its scores.
    kept : Path, optional
        A JSON file that keeps the scores of the slow methods from one evaluation to the next.
    """
    store, rows, methods = measure.ScoreCache(kept), [], _baselines()
    shown: dict[tuple[str, str], np.ndarray] = {}
    for case in measure.cases(recipe.data, SIZE):
        for setting, noisy, true, level, rician in settings(case):
            scores = {"input": measure.compare(noisy, true.truth, case.peak)}
            for name, method in methods.items():
                slow = partial(_score, method, noisy, true, level, rician)
                scores[name] = store.get(key(name, case, setting), slow)
            restored = restore(bundle, case, noisy, options)
            scores["mr-denoise"] = measure.compare(restored, true.truth, case.peak)
            shown[case.source, setting] = restored
            rows.append({"setting": setting, "file": case.source, "person": case.person, "scores": scores})
            on_case(f"{case.source} {setting}", report.format_scores(scores))
    measured = {
        "people": count_of(rows, "person"),
        "volumes": count_of(rows, "file"),
        "table": report.by_setting(rows, "mr-denoise", list(methods)),
        "cases": rows,
    }
    return measured_on("held_out", measured, lambda: {"examples.png": _examples(recipe.data, rows, shown)})


def settings(case: measure.Case) -> Iterator[tuple[str, np.ndarray, measure.Case, float, bool]]:
    """What is measured of a case: its name, the noisy image, the case with its truth, the noise's level and kind."""
    for rician in (True, False):
        for level in LEVELS:
            name = f"{'Rician' if rician else 'Gaussian'} {100 * level:.0f}%"
            yield name, measure.noisy(case, level, rician), case, level, rician
    for share in KEPT_SHARES:
        if share < 1:
            name = f"Rician {100 * KSPACE_LEVEL:.0f}%, {share:g} of k-space"
            yield name, *measure.partly_sampled(case, share, KSPACE_LEVEL), KSPACE_LEVEL, True


def key(method: str, case: measure.Case, setting: str) -> str:
    """Under which a method's scores are kept."""
    return f"{method} {case.source} {setting} {'x'.join(map(str, case.truth.shape))}"


def restore(bundle: Bundle, case: measure.Case, noisy: np.ndarray, options: RunOptions) -> np.ndarray:
    """The bundle's answer (Z, Y, X), as a user gets it."""
    result = engine.run_to_end(case.volume(noisy), bundle, options)
    assert result.image is not None  # of a restoration that was not cancelled
    return np.asarray(result.image.data)[0]


def _baselines() -> dict[str, Callable[[np.ndarray, float, bool], np.ndarray]]:
    """The methods whose packages are installed."""
    from importlib.util import find_spec

    found: dict[str, Callable[[np.ndarray, float, bool], np.ndarray]] = {}
    if find_spec("dipy"):
        found |= {"nlm": measure.non_local_means, "nlm-blockwise": measure.blockwise_non_local_means}
    if find_spec("bm4d"):
        found |= {"bm4d": measure.bm4d, "bm4d-vst": measure.bm4d_stabilised}
    if not found:
        raise InputError("there is nothing to compare with: pip install dipy bm4d (the latter not for commercial use)")
    return found


def _score(method: Any, noisy: np.ndarray, case: measure.Case, level: float, rician: bool) -> measure.Scores:
    return measure.compare(method(noisy, level * case.peak, rician), case.truth, case.peak)


def _examples(folder: Path, rows: list[report.Row], shown: dict[tuple[str, str], np.ndarray]) -> bytes:
    """A typical case, and the one that gains least: truth, noisy, restored, what was removed, what is wrong."""
    cases = {case.source: case for case in measure.cases(folder, SIZE)}
    strong = [row for row in rows if row["setting"] == "Rician 9%"]
    lines = []
    for label, row in (("", strong[0]), ("least gain: ", report.worst(rows, "mr-denoise", "input"))):
        case, setting = cases[row["file"]], row["setting"]
        kind, percent = setting.rstrip("%").split()
        noisy = measure.noisy(case, float(percent) / 100, kind == "Rician") / case.peak
        truth, restored = case.truth / case.peak, shown[row["file"], setting] / case.peak
        volumes = (
            ("original", truth),
            (setting, noisy),
            ("mr-denoise", restored),
            ("removed", noisy - restored),
            ("error", restored - truth),
        )
        slices = [(title, report.to_canonical(volume, case.affine, 0)) for title, volume in volumes]
        lines.append((label + row["file"], slices))
    return report.picture(lines)


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    return cards.denoise(spec(), metrics, METHODS, USE)
