"""The part of the panel that chooses what goes in: a volume a channel, a batch, a region, a segmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..scripting import Scripting
from .parameters import ROI, SEGMENTATION, Parameters

SELECTORS = {"regionSelector": ROI, "segmentationSelector": SEGMENTATION}


class InputsSection:
    """Belongs to `widget.Panel`, which has what is named here."""

    ui: Any
    logic: Scripting
    host: Any
    changed: Callable[[], None]
    selectors: list[tuple[str, Any]]

    def draw_inputs(self, parameters: Parameters) -> None:
        """Show what is chosen, and what suits the bundle."""
        ui = self.ui
        bundle, mode = self.logic.bundles.get(parameters["bundle"]), parameters["mode"]
        channels = bundle.channels if bundle else ("image",)
        if mode != "list" and [name for name, _ in self.selectors] != list(channels):
            self._make_selectors(channels)
        for (_, selector), node in zip(self.selectors, parameters.inputs(len(self.selectors)), strict=True):
            selector.setCurrentNode(node)
        ui.inputsWidget.setVisible(mode != "list")
        ui.batchSelector.setVisible(mode == "list")
        ui.batchSelectorLabel.setVisible(mode == "list")
        self.host.check_nodes(ui.batchSelector, parameters.batch())
        for name, role in SELECTORS.items():
            getattr(ui, name).setCurrentNode(parameters.reference(role))
        task = bundle.task if bundle else "segmentation"
        for name, tasks in (
            ("surfaces", "segmentation"),
            ("probabilities", "segmentation"),
            ("residual", "restoration"),
        ):
            getattr(ui, name + "Check").setEnabled(task == tasks)
        ui.segmentationSelector.setEnabled(task == "segmentation")

    def _make_selectors(self, channels: tuple[str, ...]) -> None:
        layout = self.ui.inputsWidget.layout()
        for _, selector in self.selectors:
            layout.removeRow(selector)
        self.selectors = []
        for channel in channels:
            selector = self.host.node_selector(self.ui.inputsWidget, self.changed)
            selector.setToolTip(f"Volume: {channel}")
            layout.addRow((channel if len(channel) < 24 else channel[:22] + "...") + ":", selector)
            self.selectors.append((channel, selector))
