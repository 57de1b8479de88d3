"""Choosing the layers that are a model's input channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_mamba.ui.widgets.forms import combo_box, row_label

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_mamba.bundles import Channel


class ChannelsBox(QWidget):
    """One list of image layers a channel, kept in step with the viewer's layers.

    Signals
    -------
    changed
        Another layer is chosen, or there are other layers to choose from.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self._viewer = viewer
        self._names: tuple[str, ...] = ()
        self._masks = False
        self.combos: list[QComboBox] = []
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self._on_layers_changed)

    @property
    def layers(self) -> list[Image | None]:
        """The chosen layer of each channel."""
        return [combo.currentData() for combo in self.combos]

    def set_channels(self, channels: Sequence[Channel]) -> None:
        """One row a channel; where there is one, it needs no name."""
        names = tuple(f"{c.name} ({c.modality})" if c.modality not in ("", c.name) else c.name for c in channels)
        if names == self._names:
            return
        self._names = names
        self._masks = any(c.modality == "MASK" for c in channels)
        while self._form.rowCount():
            self._form.removeRow(0)
        self.combos = []
        for name in names:
            combo = combo_box(f"The {'labels or image' if self._masks else 'image'} layer that shows {name}")
            combo.currentIndexChanged.connect(self._on_chosen)
            alone = "Mask" if self._masks else "Image"
            self._form.addRow(row_label(alone if len(names) == 1 else name), combo)
            self.combos.append(combo)
        self.refresh()

    def refresh(self) -> None:
        """List the viewer's image layers anew, and its labels where masks are wanted, keeping what is chosen."""
        images = _images(self._viewer, self._masks)
        kept = [layer if layer in images else None for layer in self.layers]
        chosen = suggest(self._names, images, kept, self._viewer.layers.selection.active)
        for combo, layer in zip(self.combos, chosen, strict=True):
            combo.blockSignals(True)
            combo.clear()
            for image in images:
                combo.addItem(image.name, image)
            combo.setCurrentIndex(images.index(layer) if layer is not None else -1)
            combo.setEnabled(bool(images))
            combo.blockSignals(False)
        self.changed.emit()

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer."""
        self._viewer.layers.events.disconnect(self._on_layers_changed)

    def _on_layers_changed(self, event: Any = None) -> None:
        self.refresh()

    def _on_chosen(self, _: int) -> None:
        self.changed.emit()


def _images(viewer: ViewerModel, masks: bool = False) -> list[Image]:
    """The viewer's image layers, the uppermost first; where `masks` its labels before them."""
    from napari.layers import Image, Labels

    labels = [layer for layer in reversed(viewer.layers) if masks and type(layer) is Labels]
    return labels + [layer for layer in reversed(viewer.layers) if type(layer) is Image]


def suggest(
    names: Sequence[str], images: Sequence[Image], kept: Sequence[Image | None], active: Image | None = None
) -> list[Image | None]:
    """A layer for each channel that has none: one that carries its name; else the active one; else the next unused.

    Parameters
    ----------
    names : sequence of str
        The channels'; their first words are looked for in the layers' names.
    images : sequence of image layers
    kept : sequence of image layer or None
        What is chosen already, a channel each.
    active : layer, optional
        The one selected in the viewer.
    """
    chosen = list(kept)
    for i, name in enumerate(names):
        word = name.split(" ", 1)[0].lower()
        named = [image for image in images if word in image.name.lower() and image not in chosen]
        if chosen[i] is None and named and len(names) > 1:
            chosen[i] = named[0]
    for i, layer in enumerate(chosen):
        unused = [image for image in images if image not in chosen] or list(images)
        if layer is None and unused:
            chosen[i] = active if active in unused else unused[0]
    return chosen
