"""Scan orders side by side on any grid, without a network: a table, and each order as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Slot
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.widgets.forms import explain

if TYPE_CHECKING:
    from napari.components import ViewerModel

COLUMNS = ("Order", "Path", "Mean", "Worst", "Stride", "Jumps")
TIPS = (
    "The scan order's name in the library",
    "Which of its paths",
    "Mean number of steps between cells that share a face",
    "The greatest number of steps between cells that share a face",
    "Mean distance between one step and the next, in cells",
    "Share of steps that leave the neighbourhood",
)
AT_FIRST = ("raster", "serpentine", "hilbert", "diagonal")


class OrdersBox(QWidget):
    """Compare the library's scan orders on a grid."""

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = viewer
        self.sides = [QSpinBox() for _ in range(3)]
        for side, axis in zip(self.sides, "zyx", strict=True):
            side.setRange(1, 64)
            side.setValue(8)
            side.setPrefix(f"{axis} ")
            explain(side, "Cells of the grid along this axis; z = 1 for a flat one", f"Cells along {axis}")
            side.valueChanged.connect(self.refresh)
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels(list(COLUMNS))
        for i, tip in enumerate(TIPS):
            self.table.horizontalHeaderItem(i).setToolTip(tip)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.verticalHeader().hide()
        explain(
            self.table, "Orders in which a scan can go through the grid, and how far apart neighbours come", "Orders"
        )
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.setMinimumHeight(260)
        self.show_button = QPushButton("Show the chosen side by side")
        self.show_button.setToolTip("Each chosen path beside the others: the path, and how it tears neighbours apart")
        self.note = QLabel(
            "Mean and worst: steps between neighbouring cells; the fewer, the less is to be remembered. "
            "Choose rows with Ctrl or Shift."
        )
        self.note.setWordWrap(True)
        grid = QHBoxLayout()
        for side in self.sides:
            grid.addWidget(side)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.addWidget(QLabel("The grid of tokens"))
        layout.addLayout(grid)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.note)
        layout.addWidget(self.show_button)
        self.show_button.clicked.connect(self.show_chosen)

    @property
    def grid(self) -> tuple[int, ...]:
        """The cells along z, y, x; along y, x for a flat grid."""
        z, y, x = (side.value() for side in self.sides)
        return (y, x) if z == 1 else (z, y, x)

    @Slot()
    def refresh(self) -> None:
        """Fill the table for the grid."""
        from napari_mamba.explain.methods.order import compare_orders

        rows = sorted(compare_orders(self.grid), key=lambda row: (row.order not in AT_FIRST, row.order, row.path))
        self.table.setRowCount(len(rows))
        for r, row in enumerate(rows):
            texts = (
                row.order,
                row.path + 1,
                f"{row.neighbours:.1f}",
                row.worst,
                f"{row.stride:.2f}",
                f"{row.jumps:.0%}",
            )
            for c, text in enumerate(texts):
                item = QTableWidgetItem(str(text))
                if c:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(r, c, item)

    def chosen(self) -> list[tuple[str, int]]:
        """The orders and paths of the selected rows; those of the first orders if none is."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        every = [
            (self.table.item(r, 0).text(), int(self.table.item(r, 1).text()) - 1) for r in range(self.table.rowCount())
        ]
        return [every[r] for r in rows] or [one for one in every if one[0] in AT_FIRST and one[1] == 0]

    @Slot()
    def show_chosen(self) -> None:
        """Lay the chosen paths out in a row, replacing those shown before."""
        for layer in [x for x in self.viewer.layers if x.metadata.get("napari_mamba_look", {}).get("of") == "orders"]:
            self.viewer.layers.remove(layer)
        chosen = self.chosen()
        for place, (name, path) in enumerate(chosen):
            add_order(self.viewer, name, path, self.grid, place)
        add_names(self.viewer, [f"{name} {path + 1}" for name, path in chosen], self.grid)
        self.viewer.reset_view()


def _shift(grid: tuple[int, ...], place: int) -> np.ndarray:
    shift = np.zeros(len(grid))
    shift[-1] = place * (grid[-1] * 1.25 + 1)
    return shift


def add_names(viewer: ViewerModel, names: list[str], grid: tuple[int, ...]) -> None:
    """The names of the orders in a row, above each."""
    from napari.layers import Points

    places = np.stack([_shift(grid, place) for place in range(len(names))]) if names else np.zeros((0, len(grid)))
    places[:, -2] = -1.6
    layer = Points(
        places,
        name="names",
        features={"name": names},
        text={"string": "{name}", "size": 10, "color": "#4aa3ff", "anchor": "lower_left"},
        size=0.01,
        border_width=0,
        face_color="transparent",
        out_of_slice_display=True,
        metadata={"napari_mamba_look": {"shows": "names", "of": "orders"}},
    )
    viewer.add_layer(layer)


def add_order(viewer: ViewerModel, name: str, path: int, grid: tuple[int, ...], place: int) -> None:
    """One path on a grid, the `place`-th of a row: an image of the neighbours' distance under the path itself."""
    from napari.layers import Image, Vectors

    from napari_mamba.explain.methods.order import neighbour_distance, positions, ranks
    from napari_mamba.scan import scan_order

    table = scan_order(name, grid).table[path]
    shift = _shift(grid, place)
    distance = neighbour_distance(ranks(table, grid))
    metadata = {"napari_mamba_look": {"shows": name, "of": "orders"}}
    title = f"{name} {path + 1}"
    viewer.add_layer(
        Image(distance, name=f"{title}: neighbours", colormap="gray", translate=shift, metadata=metadata, opacity=0.6)
    )
    points = positions(table, grid)
    data = np.stack([points[:-1], np.diff(points, axis=0)], axis=1)
    look: dict = {"edge_color": "step", "edge_colormap": "turbo", "edge_width": 0.15, "vector_style": "line"}
    look |= {"features": {"step": np.arange(len(data), dtype=float)}, "translate": shift, "metadata": metadata}
    look |= {"opacity": 1.0, "blending": "translucent_no_depth"}  # an image in 3D would hide it
    viewer.add_layer(Vectors(data, name=title, **look))
