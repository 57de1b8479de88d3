"""Draw the figures of docs/look_inside.md from shipped bundles on sample data: `python docs/make_look_inside.py`.

Needs matplotlib. About two minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from napari_mamba import bundles, io
from napari_mamba.explain import compare_orders, explain, ranks, subject_of
from napari_mamba.explain.figure import is_signed, limits_of
from napari_mamba.explain.methods.order import neighbour_distance
from napari_mamba.scan import scan_order

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "sample_data"
IMAGES = HERE / "images"
LAYER = "encoder.mamba_layers.1.mamba"
VOXEL = (20, 26, 18)
GREY = {"cmap": "gray", "origin": "lower"}


def orders() -> None:
    """Four orders on a flat grid: the way, and what it tears apart."""
    grid, names = (16, 16), ("raster", "serpentine", "diagonal", "hilbert")
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), constrained_layout=True)
    table = {(row.order, row.path): row for row in compare_orders(grid, names)}
    for column, name in enumerate(names):
        path = scan_order(name, grid).table[0]
        y, x = np.unravel_index(path, grid)
        axes[0, column].scatter(x, y, c=np.arange(len(path)), s=5, cmap="turbo")
        axes[0, column].plot(x, y, lw=0.6, color="0.4", zorder=0)
        axes[0, column].set(title=name, aspect="equal", xticks=[], yticks=[])
        axes[0, column].invert_yaxis()
        shown = axes[1, column].imshow(neighbour_distance(ranks(path, grid)), cmap="inferno", vmin=0, vmax=40)
        row = table[name, 0]
        axes[1, column].set(title=f"mean {row.neighbours:.1f}, worst {row.worst}", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[1], label="steps to the cells beside it", shrink=0.8)
    save(figure, "look_orders.png")


def maps() -> None:
    """One real case: what the layer's states hold, what one voxel drew from, what the answer rests on."""
    volume = io.read(SAMPLES / "hippocampus_left.nii.gz")
    subject = subject_of(volume, bundles.load("hippocampus-mr"))
    what = ["order", "state", "memory", "attention", "relevance", "field"]
    found = explain(subject, what, VOXEL, LAYER, target="anterior hippocampus")
    image, z = volume.data[0], VOXEL[0]
    names = ("order 1", "state", "memory mm", "attention drawn", "attention given", "relevance", "field")
    titles = ("when the scan comes", "norm of the state", "memory in mm", "what it drew from", "what drew from it",
              "relevance for the class", "receptive field")  # fmt: skip
    figure, axes = plt.subplots(2, 4, figsize=(12, 7.2), constrained_layout=True)
    axes[0, 0].imshow(image[z], **GREY)
    axes[0, 0].set_title("the image, and the voxel")
    for axis, name, title in zip(axes.flat[1:], names, titles, strict=True):
        values = np.asarray(found.volumes[name].data[0])
        low, high = limits_of(name, values if name != "order 1" else values[z])
        part = np.ma.masked_where(np.abs(values[z]) < 0.02 * max(abs(low), abs(high)), values[z])
        axis.imshow(image[z], **GREY)
        cmap = "bwr" if is_signed(name) else "inferno"
        drawn = axis.imshow(part, cmap=cmap, vmin=low, vmax=high, alpha=0.7, origin="lower")
        axis.set_title(title)
        figure.colorbar(drawn, ax=axis, shrink=0.7, format="%.2g")
    for axis in axes.flat:
        axis.plot(VOXEL[2], VOXEL[1], "+", color="lime", ms=10)
        axis.set(xticks=[], yticks=[])
    save(figure, "look_maps.png")
    curve(found)
    print(found.facts["memory"], found.facts["field"], found.facts["relevance"], sep="\n")


def curve(found) -> None:
    """The state's norm along the path."""
    steps, norms = found.curves["state"]["step"], found.curves["state"]["norm"]
    figure, axis = plt.subplots(figsize=(9, 2.4), constrained_layout=True)
    axis.plot(steps, norms, lw=1)
    axis.axvline(found.curves["state"]["at"][0], color="green", lw=1, label="the voxel")
    axis.set(xlabel="step of the scan", ylabel="norm of the state", ylim=(0, None))
    axis.legend(frameon=False)
    save(figure, "look_curve.png")


def save(figure, name: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / name, dpi=90)
    print(IMAGES / name)


if __name__ == "__main__":
    orders()
    maps()
