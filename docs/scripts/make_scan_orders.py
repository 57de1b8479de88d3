"""Draw docs/scan_orders.png, every 2D scan order on a small grid (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection

from napari_mamba.scan import scan_order

GRID = (8, 8)
# Order, its arguments, which of its paths is drawn, what is said under the name.
PANELS = (
    ("raster", {}, 0, "forward"),
    ("reverse", {}, 0, "also bidirectional 2"),
    ("axis", {"axes": 0}, 0, "axis 0 fastest; ss2d 2"),
    ("serpentine", {}, 0, "also continuous 1 of 4"),
    ("continuous", {}, 1, "2 of 4"),
    ("zigzag", {}, 5, "6 of 8"),
    ("tom", {"nslices": 4}, 2, "nslices=4, 3 of 3"),
    ("spatiotemporal", {}, 2, "3 of 3"),
    ("local", {"window": 4}, 0, "window=4, 1 of 2; windows 1"),
    ("windows", {"window": 4}, 1, "patch-wise, 2 of 4"),
    ("atrous", {"step": 2}, 0, "step=2, 1 of 2; efficient"),
    ("hierarchical", {}, 0, "levels=3, 1 of 2"),
    ("bss", {"band": 4}, 0, "band=4, 1 of 4"),
    ("bss", {"band": 4}, 1, "band=4, 2 of 4"),
    ("omnidirectional", {}, 2, "3 of 8"),
    ("omnidirectional", {}, 3, "4 of 8"),
    ("diagonal", {}, 0, "multi_head 3"),
    ("spiral", {}, 0, "multi_head 4"),
    ("multi_path", {"seed": 0}, 2, "seed=0, 3 of 3"),
    ("hilbert", {}, 0, "any size"),
)


def draw(axes: plt.Axes, name: str, arguments: dict, path: int, note: str) -> None:
    """Draw one path: a line from its first cell (dark, dot) to its last (bright), jumps of more than a cell thin."""
    order = scan_order(name, GRID, **arguments)
    y, x = np.unravel_index(order.table[path], GRID)
    points = np.stack([x, y], axis=1)
    segments = np.stack([points[:-1], points[1:]], axis=1)
    jump = np.abs(np.diff(points, axis=0)).max(axis=1) > 1
    lines = LineCollection(
        segments, cmap="viridis", array=np.arange(len(segments)), linewidths=np.where(jump, 0.5, 2.0)
    )
    axes.add_collection(lines)
    axes.plot(*points[0], "o", color="black", markersize=5)
    axes.plot(*points[-1], "s", color="tab:red", markersize=4)
    axes.set(xlim=(-0.7, GRID[1] - 0.3), ylim=(GRID[0] - 0.3, -0.7), xticks=[], yticks=[], aspect="equal")
    axes.set_title(f"{name}\n{note}", fontsize=8)


def main() -> None:
    figure, panels = plt.subplots(4, 5, figsize=(9, 8.2), layout="constrained")
    for axes, panel in zip(panels.flat, PANELS, strict=True):
        draw(axes, *panel)
    figure.savefig(Path(__file__).parents[1] / "scan_orders.png", dpi=80)


if __name__ == "__main__":
    main()
