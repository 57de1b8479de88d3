"""The bundle `mr-superres`: its description, its card, and its numbers on held-out people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from napari_mamba import engine
from napari_mamba.bundles import Bundle, BundleSpec, Channel, Network, Tile
from napari_mamba.engine import RunOptions
from napari_mamba.engine.preparation.grids.slices import FWHM_PER_SIGMA
from napari_mamba.engine.preparation.grids.upsampling import slice_inverse_matrix
from napari_mamba.recipes.measurement import Measurement, OnCase, count_of, measured_on
from napari_mamba.recipes.restore import cards, data, measure, report
from napari_mamba.recipes.restore.superres import FACTORS, UPSAMPLING_RANGE, SuperResolution
from napari_mamba.recipes.restore.task import SCANS
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.export import export_averaged
from napari_mamba.volume import Volume

TESTED = (2, 3, 4)
"""Slice distances, in fine voxels, at each profile; `FARTHEST` at the Gaussian one alone."""
FARTHEST = (6,)
PROFILES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gaussian": lambda place: np.exp(-0.5 * (place * FWHM_PER_SIGMA) ** 2),
    "box": lambda place: np.where(np.abs(place) < 0.5, 1.0, 0.0),
    "sinc": lambda place: np.where(np.abs(place) < 3, np.sinc(place), 0.0),
}
"""How much counts what lies at a distance from a slice's centre, in distances of slices."""

WHOLE = 12
"""Sides of what is compared are multiples of this, so that every tested slice distance divides them."""

ISOTROPIC, CLINICAL = (120, 144, 132), (36, 168, 168)
"""Voxels at most of what is compared, of scans with cubic voxels and with thick slices."""

Line = tuple[report.Row, list[tuple[str, np.ndarray]]]
"""A scan's numbers, and slices of it by title."""

METHODS = {"linear": "linear", "spline": "cubic B-spline", "filter": "best filter", "mr-superres": "mr-superres"}
USE = (
    "Research on 2D multi-slice MR of the head, slices 1.5 to 8 times as thick as the voxels in their plane: a finer "
    "grid for viewing, registration and segmentation. Not for clinical use: what lies between two slices is inferred. "
    "Not for measuring structures thinner than a slice, for CT, or for images that were interpolated before."
)


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    percentile = {"scheme": "percentile", "lower": None, "upper": 99.9, "clip": False}
    return BundleSpec(
        name="mr-superres",
        version="1.5.1",
        title="Thick-slice MR to a fine grid, any slice thickness",
        task="restoration",
        network=Network("voxel_mamba_unet", {**UPSAMPLING_RANGE, "scan": SCANS[SuperResolution.variants[0]]}),
        channels=(Channel("MR", "MR"),),
        preparation=(
            {"step": "refine", "order": 3, "max_factor": FACTORS[1], "profile": "gaussian", "data_consistency": False},
            {"step": "normalise", "schemes": [percentile]},
            {"step": "append_upsampling_channel"},
        ),
        tile=Tile((64, 128, 128), overlap=0.125, mirror_axes=(0, 1, 2), divisor=(4, 4, 4), fit_tiles=True),
        activation="none",
        description="Lays thick slices out on a fine grid, sharpened as a filter can, and adds the detail they lack.",
        authors="The napari-mamba developers",
        copyright="Weights: CC BY 4.0",
        licence="CC-BY-4.0",
        data_source=data.ATTRIBUTION,
        intended_use=USE,
        changelog={
            "1.3.1": "Images that are no head in thick slices of MR are doubted; the weights are the same.",
            "1.4.0": "Learnt slices of nine profiles, with gaps and overlaps; the answer is no longer bent until "
            "Gaussian slices of it give the scan.",
            "1.5.0": "Slices whose profile is told, or that a header calls a 3D acquisition's, are kept; the weights "
            "are the same.",
            "1.5.1": "CTs kept in a window (30 of 32 in the test, 8 of 8 from elsewhere), PET, heads twice as large "
            "and label maps are doubted; the weights are the same.",
        },
        references=(
            "Zhao et al.: SMORE, IEEE TMI 40:805, 2021",
            "Guo et al.: MambaIR, arXiv:2402.15648",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


def simulate_thick_slices(fine: Volume, axis: int, factor: int, profile: str = "gaussian") -> Volume:
    """A volume whose slices along `axis` are `factor` times as thick: of a profile as wide as they are apart."""
    values = np.asarray(fine.data)[0]
    count = values.shape[axis] // factor
    centres = (np.arange(count) + 0.5) * factor - 0.5
    weights = PROFILES[profile]((np.arange(values.shape[axis]) - centres[:, None]) / factor)
    weights /= weights.sum(axis=1, keepdims=True)
    coarse = np.moveaxis(np.tensordot(values, weights, axes=(axis, 1)), -1, axis)
    affine = np.array(fine.affine)
    affine[:3, 3] += affine[:3, axis] * centres[0]
    affine[:3, axis] *= factor
    return Volume(coarse[None].astype(np.float32), affine, name=fine.name)


def cases(folder: Path) -> Iterator[tuple[measure.Case, int]]:
    """Held-out scans, and the axis to degrade, cut to a multiple of 12: the first, of clinical scans one in-plane."""
    for size, isotropic in ((CLINICAL, False), (ISOTROPIC, True)):
        for case in measure.cases(folder, size):
            spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
            if (spacing.max() < 1.2 * spacing.min()) != isotropic:
                continue
            axis = int(np.argmin(spacing)) if not isotropic else 0
            where = tuple(slice(n // WHOLE * WHOLE) if a == axis else slice(n) for a, n in enumerate(case.truth.shape))
            yield replace(case, truth=case.truth[where]), axis


def evaluate(recipe: Recipe, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """PSNR and SSIM against linear and cubic spline interpolation, on people that training never saw."""
    rows: list[report.Row] = []
    lines: list[Line] = []
    for case, axis in cases(recipe.data):
        for setting in settings():
            row, found = measured_row(case, axis, setting, bundle, options)
            rows.append(row)
            if setting == ("gaussian", 4, False):
                lines.append((row, _slices(case, axis, found)))
            on_case(f"{case.source} {row['setting']}", report.format_scores(row["scores"]))
    measured = {
        "people": count_of(rows, "person"),
        "volumes": count_of(rows, "file"),
        "largest_beyond_range": max(row["beyond_range"] for row in rows),
        "table": report.by_setting(rows, "mr-superres", ["spline", "linear"]),
        "cases": rows,
    }
    return measured_on("held_out", measured, lambda: {"examples.png": _examples(lines)})


def measured_row(
    case: measure.Case, axis: int, setting: tuple[str, int, bool], bundle: Bundle, options: RunOptions
) -> tuple[report.Row, dict[str, np.ndarray]]:
    """A scan's numbers at one of `settings`, and the images (Z, Y, X) that they are of."""
    profile, factor, told = setting
    coarse = simulate_thick_slices(case.volume(case.truth), axis, factor, profile)
    known = replace(options, slice_profile=profile if told else None)
    found = {**interpolated(coarse, axis, factor), "mr-superres": restore(bundle, coarse, axis, factor, known)}
    scores = {name: measure.compare(values, case.truth, case.peak) for name, values in found.items()}
    beyond, given = found["mr-superres"], np.asarray(coarse.data)
    over = max(float(beyond.max() - given.max()), float(given.min() - beyond.min()), 0.0) / case.peak
    row: report.Row = {"setting": name_of(*setting), "file": case.source, "person": case.person, "scores": scores}
    return row | {"beyond_range": over}, found


def name_of(profile: str, factor: int, told: bool) -> str:
    """A setting in the card's words.

    >>> name_of("sinc", 2, True)
    '2×, sinc, told'
    """
    name = f"{factor}×" if profile == "gaussian" else f"{factor}×, {profile}"
    return f"{name}, told" if told else name


def settings() -> list[tuple[str, int, bool]]:
    """Profiles and slice distances that are measured, and whether the run is told the profile."""
    unknown = [("gaussian", n) for n in (*TESTED, *FARTHEST)]
    unknown += [(p, n) for p in PROFILES if p != "gaussian" for n in TESTED]
    return [(*one, False) for one in unknown] + [("sinc", n, True) for n in TESTED]


def interpolated(coarse: Volume, axis: int, factor: int) -> dict[str, np.ndarray]:
    """What SciPy makes of the thick slices along one axis, and what the network starts from."""
    zoom = [factor if a == axis else 1 for a in range(3)]
    values = np.asarray(coarse.data)[0]
    orders = {"linear": 1, "spline": 3}
    found = {n: ndimage.zoom(values, zoom, order=o, mode="nearest", grid_mode=True) for n, o in orders.items()}
    count = values.shape[axis]
    maps = slice_inverse_matrix(count, count * factor, 1 / factor, (1 - factor) / (2 * factor))
    filtered = np.moveaxis(np.tensordot(values, maps, axes=(axis, 1)), -1, axis)
    return {**found, "filter": np.clip(filtered, values.min(), values.max())}


def restore(bundle: Bundle, coarse: Volume, axis: int, factor: int, options: RunOptions) -> np.ndarray:
    """The bundle's answer (Z, Y, X) on a grid that is finer along `axis` alone."""
    spacing = tuple(float(s) / (factor if a == axis else 1) for a, s in enumerate(coarse.spacing))
    result = engine.run_to_end(coarse, bundle, replace(options, spacing=spacing))
    assert result.image is not None  # of a restoration that was not cancelled
    return np.asarray(result.image.data)[0]


def _examples(lines: Sequence[Line]) -> bytes:
    """Of the scans whose slices are shown: one that gains as much as most, and the one that gains least."""

    def gain(line: Line) -> float:
        scores = line[0]["scores"]
        return float(scores["mr-superres"]["psnr"] - scores["spline"]["psnr"])

    ordered = sorted(lines, key=gain)
    chosen = (("", ordered[len(ordered) // 2]), ("least gain: ", ordered[0]))
    return report.picture([(label + row["file"], slices) for label, (row, slices) in chosen])


def _slices(case: measure.Case, axis: int, found: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """A slice that holds the degraded axis: the truth, each method, the error."""
    across = 1 if axis != 1 else 2
    spline, ours = found["spline"], found["mr-superres"]
    shown = (("original", case.truth), ("cubic B-spline", spline), ("mr-superres", ours), ("error", ours - case.truth))
    if case.truth.shape[0] < 60:  # of a clinical scan, the slice as it was taken
        across = 0
    return [(title, report.to_canonical(values, case.affine, across) / case.peak) for title, values in shown]


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    return cards.superres(spec(), metrics, METHODS, USE)
