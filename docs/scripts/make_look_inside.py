"""Draw the figures of docs/look_inside.md from shipped bundles on sample data.

Needs matplotlib. About three minutes on two cores that do nothing else.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.explain import compare_orders, explain, ranks, subject_of
from napari_mamba.explain.figure import is_signed, limits_of
from napari_mamba.explain.methods.order import neighbour_distance
from napari_mamba.scan import scan_order

DOCS = Path(__file__).parents[1]
SAMPLES = DOCS.parent / "sample_data"
IMAGES = DOCS / "images"
BUNDLE = "hippocampus-mr"
LAYER = "encoder.mamba_layers.1.mamba"
CLASS = "anterior hippocampus"
VOXEL = (20, 26, 18)
GREEN = "#39d353"
METHODS = {"relevance": "#1f77b4", "gradient": "#ff7f0e", "integrated": "#2ca02c"}
NAMES = {"relevance": "relevance", "gradient": "gradient × input", "integrated": "integrated gradients"}


def orders() -> None:
    """Four orders on a flat grid: the way, and what it tears apart."""
    grid, names = (16, 16), ("raster", "serpentine", "diagonal", "hilbert")
    figure, axes = plt.subplots(2, 4, figsize=(11.5, 6), constrained_layout=True)
    table = {(row.order, row.path): row for row in compare_orders(grid, names)}
    for column, name in enumerate(names):
        path = scan_order(name, grid).table[0]
        y, x = np.unravel_index(path, grid)
        axis = axes[0, column]
        axis.plot(x, y, lw=0.7, color="0.45", zorder=0)
        way = axis.scatter(x, y, c=np.arange(len(path)), s=9, cmap="turbo")
        axis.plot(x[0], y[0], "o", ms=9, mfc="none", mec="black", label="start")
        axis.plot(x[-1], y[-1], "s", ms=9, mfc="none", mec="black", label="end")
        axis.set(title=name, aspect="equal", xticks=[], yticks=[0, 15])
        axis.invert_yaxis()
        axis = axes[1, column]
        shown = axis.imshow(neighbour_distance(ranks(path, grid)), cmap="inferno", vmin=0, vmax=40)
        row = table[name, 0]
        axis.set(xlabel=f"mean {row.neighbours:.1f}, longest {row.worst} steps", xticks=[0, 15], yticks=[0, 15])
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2, fontsize=8, frameon=False)
    for axis in axes[:, 0]:
        axis.set_ylabel("row of tokens")
    figure.colorbar(way, ax=axes[0], label="step of the scan", shrink=0.85)
    figure.colorbar(shown, ax=axes[1], label="steps to the neighbours (mean)", shrink=0.85, extend="max")
    save(figure, "look_orders.png")


def path(found, subject) -> None:
    """The layer's own path in the head, and its step at each voxel of a slice."""
    way = found.paths["path 1"]
    figure = plt.figure(figsize=(10, 4.6), constrained_layout=True)
    axis = figure.add_subplot(1, 2, 1, projection="3d")
    kept = way[: 20 * 28 * 20]
    stride = 28 * 20  # every other slice of tokens, so that the eye gets through
    for start in range(0, len(kept), 2 * stride):
        part = kept[start : start + stride]
        axis.plot(*part.T, lw=0.6, color=plt.cm.turbo(start / len(kept)))
    at = subject.volume.affine @ [*VOXEL, 1]
    axis.plot(*at[:3, None], "o", color=GREEN, mec="black", ms=7)
    for side in (axis.xaxis, axis.yaxis, axis.zaxis):
        side.set_major_locator(plt.MultipleLocator(10))
    axis.set(xlabel="R (mm)", ylabel="A (mm)", zlabel="S (mm)", title="one path through 20 × 28 × 20 tokens")
    axis.set_box_aspect(np.ptp(kept, axis=0))
    axis.view_init(elev=18, azim=-60)
    axis = figure.add_subplot(1, 2, 2)
    image, order = subject.volume.data[0], np.asarray(found.volumes["order 1"].data[0])
    y = VOXEL[1]
    axis.imshow(image[:, y], cmap="gray", origin="lower")
    drawn = axis.imshow(order[:, y], cmap="turbo", origin="lower", alpha=0.55)
    axis.plot(VOXEL[2], VOXEL[0], "o", color=GREEN, mec="black", ms=7)
    axis.set(title="the same, on a coronal slice", xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axis, label="step of the scan", shrink=0.9)
    save(figure, "look_path.png")


def maps(found, subject, labels) -> None:
    """One real case: what the layer's states hold, what one voxel drew from, what the answer rests on."""
    z = VOXEL[0]
    panels = {
        "state": ("norm of the state", "|h|"),
        "step_size": ("step size: what is let in", "Δ (mean over channels)"),
        "memory mm": ("memory: how far it is kept", "mm"),
        "attention drawn": ("what the voxel drew from", "mean |α|"),
        "attention given": ("what drew from the voxel", "mean |α|"),
        "relevance": ("relevance for “anterior”", "logit"),
        "field": ("receptive field of the voxel", "|gradient|"),
    }
    figure, axes = plt.subplots(2, 4, figsize=(13, 8), constrained_layout=True)
    draw_image(axes[0, 0], subject, labels, z)
    axes[0, 0].set_title("A  image, answer, voxel")
    for letter, axis, (name, (title, unit)) in zip("BCDEFGH", axes.flat[1:], panels.items(), strict=True):
        values = np.asarray(found.volumes[name].data[0])[z]
        low, high = limits_of(name, np.asarray(found.volumes[name].data[0]))
        draw_image(axis, subject, labels, z)
        if is_signed(name):
            opacity = np.clip(np.abs(values) / high * 2.5, 0, 0.9)
        else:  # clear where it says nothing
            opacity = np.clip(0.15 + (values - low) / (high - low), 0, 0.85) * (values > 0)
        cmap = "bwr" if is_signed(name) else "inferno"
        drawn = axis.imshow(values, cmap=cmap, norm=Normalize(low, high), alpha=opacity, origin="lower")
        mark(axis)
        axis.set_title(f"{letter}  {title}")
        bar = figure.colorbar(plt.cm.ScalarMappable(drawn.norm, cmap), ax=axis, shrink=0.75, format="%.2g", label=unit)
        bar.ax.tick_params(labelsize=8)
    save(figure, "look_maps.png")


def draw_image(axis, subject, labels, z) -> None:
    """A slice with the outlines of the classes, the voxel, and a bar of 10 mm."""
    axis.imshow(subject.volume.data[0, z], cmap="gray", origin="lower")
    for index, colour in ((1, "#ffd54a"), (2, "#4ad8ff")):
        if (labels[z] == index).any():
            axis.contour(labels[z] == index, [0.5], colors=[colour], linewidths=1.2)
    mark(axis)
    length = 10 / subject.volume.spacing[2]
    axis.plot([1, 1 + length], [1, 1], color="white", lw=3, solid_capstyle="butt")
    axis.text(1, 2, "10 mm", color="white", fontsize=8)
    axis.set(xticks=[], yticks=[])


def mark(axis) -> None:
    axis.plot(VOXEL[2], VOXEL[1], "+", color=GREEN, ms=11, mew=2)


def curve(found) -> None:
    """The state's norm along the path, some rows of tokens before and after the voxel."""
    steps, norms = found.curves["state"]["step"], found.curves["state"]["norm"]
    at = int(found.curves["state"]["at"][0])
    near = np.abs(steps - at) <= 120
    figure, axis = plt.subplots(figsize=(10, 2.9), constrained_layout=True)
    for start in range(at - at % 20 - 120, at + 140, 20):
        axis.axvline(start, color="0.88", lw=1, zorder=0)
    axis.plot(steps[near], norms[near], lw=1.6)
    axis.axvline(at, color=GREEN, lw=2, label="the voxel's token")
    axis.set(xlabel="step of the scan (a grey line where a new row of 20 tokens begins)", ylim=(0, None))
    axis.set_ylabel("norm of the hidden state |h|")
    axis.set_xlim(at - 120, at + 120)
    axis.legend(frameon=False, loc="lower left")
    save(figure, "look_curve.png")


def faithful(found) -> None:
    """Which map to believe, and how the receptive field grows."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    for axis, side in zip(axes, ("deletion", "insertion"), strict=False):
        for method, colour in METHODS.items():
            area = found.facts["faithfulness"][method][side]
            line = found.curves[side]
            axis.plot(
                100 * line["share"], 100 * line[method], "o-", ms=3, color=colour, label=f"{NAMES[method]} ({area:.2f})"
            )
        verb = "blurred away" if side == "deletion" else "put back"
        good = "low is good" if side == "deletion" else "high is good"
        axis.set(xlabel=f"voxels {verb}, most important first (%)", ylabel="answer left (%)", title=f"{side}: {good}")
        axis.legend(title="area under the curve in brackets", fontsize=8, title_fontsize=8)
    rows = found.facts["field"]
    names = [row["layer"].replace("encoder.mamba_layers.", "scan ").replace(".mamba", "") for row in rows]
    for key, colour, label in (("half_mm", "#1f77b4", "half of it"), ("most_mm", "#9ecae1", "95% of it")):
        values = [row[key] for row in rows]
        axes[2].barh(names, values, color=colour, zorder=2 if key == "half_mm" else 1, label=label)
    axes[2].invert_yaxis()
    axes[2].set(xlabel="distance from the voxel (mm)", title="the receptive field, layer by layer")
    axes[2].legend(fontsize=8, loc="lower right")
    save(figure, "look_faithful.png")


def save(figure, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / name, dpi=90)
    plt.close(figure)
    print(IMAGES / name)


def main() -> None:
    orders()
    volume, bundle = io.read(SAMPLES / "hippocampus_left.nii.gz"), bundles.load(BUNDLE)
    labels = run_to_end(volume, bundle, RunOptions(device="cpu", mirror=False)).labels
    assert labels is not None
    subject = subject_of(volume, bundle)
    what = ["order", "state", "step_size", "memory", "attention", "relevance", "field", "faithfulness"]
    found = explain(subject, what, VOXEL, LAYER, target=CLASS)
    path(found, subject)
    maps(found, subject, np.asarray(labels.data)[0])
    curve(found)
    faithful(found)
    for key in ("memory", "field", "relevance", "faithfulness"):
        print(key, found.facts[key])


if __name__ == "__main__":
    main()
