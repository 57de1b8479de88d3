"""The dock widget "Look inside": draws the model and hands clicks to it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, Slot
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.layers import Placement, layers_to_volume
from napari_mamba.ui.look_inside import drawing, saving
from napari_mamba.ui.look_inside.boxes import LayerTree, MapsBox, WalkBox
from napari_mamba.ui.look_inside.jobs import Jobs
from napari_mamba.ui.look_inside.model import SLICE, WINDOW, LookModel
from napari_mamba.ui.look_inside.orders import OrdersBox
from napari_mamba.ui.look_inside.requests import Answer, Request, sentence
from napari_mamba.ui.run.views.own_choice import DISCLAIMER, ChannelsBox, ModelBox
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.engine import Progress
    from napari_mamba.explain.recorded.subject import Subject

NO_IMAGE = "Open an image first, and choose the model that reads it."


class LookInsideWidget(QWidget):
    """Shows how a model went through an image layer.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.model = LookModel()
        self.jobs = Jobs(self)
        self.subject: Subject | None = None
        self.place: Placement | None = None
        self.bundle = ModelBox()
        self.bundle.summary.hide()
        self.channels = ChannelsBox(napari_viewer)
        self.open_button = QPushButton("Look inside")
        self.open_button.setToolTip("Send the image through the model once and listen to its scans")
        self.tree = LayerTree()
        self.walk = WalkBox(self.model)
        self.maps = MapsBox(self.model)
        self.orders = OrdersBox(napari_viewer)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.cancel_button = QPushButton("Cancel")
        self.save_view_button = QPushButton("Save view…")
        self.save_view_button.setToolTip("The picture as PNG or SVG")
        self.save_walk_button = QPushButton("Save walk…")
        self.save_walk_button.setToolTip("The marker's way along the path as GIF or MP4")
        self.message = Notice(napari_viewer)
        self._build()
        self._connect()
        self._on_bundle()
        self._refresh()

    # ---- looks

    def _build(self) -> None:
        self.setMinimumWidth(360)
        network = QWidget()
        column = QVBoxLayout(network)
        column.setContentsMargins(0, 6, 0, 0)
        disclaimer = QLabel(f"{DISCLAIMER} Maps are hints, not proofs.")
        disclaimer.setWordWrap(True)
        parts: tuple[QWidget, ...] = (self.bundle, self.channels, self.open_button, _heading("Layer"), self.tree)
        parts += (_heading("The scan's path"), self.walk, _heading("Maps of the layer"), self.maps, disclaimer)
        for part in parts:
            column.addWidget(part)
        column.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.addTab(_scrolled(network), "A model")
        self.tabs.addTab(_scrolled(self.orders), "Scan orders")
        below = QHBoxLayout()
        for button in (self.save_view_button, self.save_walk_button, self.cancel_button):
            below.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.bar)
        layout.addWidget(self.message)
        layout.addLayout(below)

    def _connect(self) -> None:
        self.bundle.changed.connect(self._on_bundle)
        self.bundle.failed.connect(lambda text: self.model.say(sentence(text), wrong=True))
        self.channels.changed.connect(self._refresh)
        self.open_button.clicked.connect(self.open)
        self.tree.chosen.connect(lambda name: setattr(self.model, "layer", name))
        self.maps.wanted.connect(self.make)
        self.cancel_button.clicked.connect(self.jobs.cancel)
        self.save_view_button.clicked.connect(self._ask_view)
        self.save_walk_button.clicked.connect(self._ask_walk)
        self.tabs.currentChanged.connect(lambda i: self.orders.refresh() if i == 1 else None)
        self.jobs.progressed.connect(self._on_progress)
        self.jobs.answered.connect(self._on_answer)
        events = self.model.events
        events.layers.connect(self._on_layers)
        events.layer.connect(self._on_layer)
        events.direction.connect(self._follow)
        events.walk.connect(self._on_walk)
        events.shown.connect(self._draw)
        events.step.connect(self._on_step)
        events.message.connect(self._on_message)
        events.busy.connect(self._refresh)
        self.viewer.dims.events.current_step.connect(self._on_slice)
        self.viewer.dims.events.ndisplay.connect(self._draw)
        self.viewer.mouse_drag_callbacks.append(self._on_mouse)

    def _refresh(self, *_: Any) -> None:
        chosen = bool(self.channels.layers) and all(layer is not None for layer in self.channels.layers)
        self.open_button.setEnabled(chosen and self.bundle.bundle is not None and not self.model.busy)
        ready = self.subject is not None and bool(self.model.layer)
        for button in self.maps.buttons.values():
            button.setEnabled(ready)
        self.maps.pick.setEnabled(ready)
        self.save_walk_button.setEnabled(self.model.walk is not None)
        self.bar.setVisible(bool(self.model.busy))
        self.cancel_button.setEnabled(bool(self.model.busy))
        if not chosen and not self.model.message:
            self.model.say(NO_IMAGE)
        elif chosen and self.model.message == NO_IMAGE:
            self.model.say("")

    def _on_message(self, text: str) -> None:
        self.message.say(text, "error" if self.model.wrong else "hint")

    # ---- opening

    @Slot()
    def _on_bundle(self) -> None:
        bundle = self.bundle.bundle
        self.channels.set_channels(bundle.channels if bundle else ())
        if bundle is not None:
            self.maps.set_classes([c.name for c in bundle.classes], bundle.task)
        self._refresh()

    @Slot()
    def open(self) -> None:
        """Open the chosen model on the chosen image."""
        bundle = self.bundle.bundle
        layers = [layer for layer in self.channels.layers if layer is not None]
        if bundle is None or not layers:
            self.model.say(NO_IMAGE)
            return
        try:
            volume, self.place = layers_to_volume(layers)
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), wrong=True)
            return
        self.model.voxel = None
        self._ask(Request("open", volume=volume, bundle=bundle))

    def _on_layers(self, layers: tuple[Any, ...]) -> None:
        self.tree.show_layers(layers)

    def _on_layer(self, name: str) -> None:
        self.tree.select(name)
        self.model.direction = 0
        self._follow()

    def _follow(self, *_: Any) -> None:
        """Have the chosen layer's path followed."""
        if self.subject is not None and self.model.layer:
            self._ask(self._request("walk"))

    # ---- asking

    def _request(self, kind: str, what: tuple[str, ...] = (), tag: Any = None) -> Request:
        model = self.model
        return Request(
            kind, subject=self.subject, layer=model.layer, direction=model.direction, voxel=model.voxel, what=what,
            target=model.target, tag=tag,
        )  # fmt: skip

    def _ask(self, request: Request) -> None:
        if not self.jobs.running:
            self.model.say("")
        self.bar.setRange(0, 0)
        self.jobs.ask(request)
        self.model.busy = request.kind

    @Slot(str)
    def make(self, name: str) -> None:
        """Make a map and show it."""
        if self.subject is not None and self.model.layer:
            self._ask(self._request("maps", (name,)))

    @Slot(object)
    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total if progress.total > 1 else 0)
        self.bar.setValue(progress.done)

    @Slot(object)
    def _on_answer(self, answer: Answer) -> None:
        request = answer.request
        self.model.busy = "" if self.jobs._waiting is None else "waiting"
        if answer.error:
            self.model.say(answer.error, wrong=True)
        elif answer.cancelled:
            self.model.say("" if request.tag == "pointer" else "Cancelled.")
        elif answer.subject is not None:
            self.subject = answer.subject
            self.model.open(answer.subject.layers)
            if not self.model.layer:
                self.model.say("This model has no scan over places of the image: choose another one.", wrong=True)
        elif request.subject is not self.subject:
            pass  # of the model before
        elif answer.walk is not None:
            if (request.layer, request.direction) == (self.model.layer, self.model.direction):
                self.model.set_walk(answer.walk)
        elif answer.found is not None:
            self._show(answer)
        self._refresh()

    def _show(self, answer: Answer) -> None:
        assert answer.found is not None and self.place is not None  # noqa: PT018
        for name, volume in answer.found.volumes.items():
            if name != "attention contribution":
                drawing.add_map(self.viewer, name, volume, self.place)
        lines = [*_facts(answer.found.facts), *answer.found.sentences]
        if lines:
            self.model.say("\n".join(lines))

    # ---- drawing

    def _draw(self, *_: Any) -> None:
        if self.place is None or not self._source_there():
            return
        drawing.draw_path(self.viewer, self.model, self.place)
        drawing.draw_marker(self.viewer, self.model, self.place)
        self._refresh()

    def _on_walk(self, *_: Any) -> None:
        if self.place is not None and self._source_there() and self.model.voxel is None:
            drawing.follow(self.viewer, self.model, self.place)
        self._draw()

    def _on_step(self, *_: Any) -> None:
        if self.place is None or not self._source_there():
            self.model.playing = False
            return
        if self.model.playing:
            drawing.follow(self.viewer, self.model, self.place)
        drawing.draw_marker(self.viewer, self.model, self.place)
        if self.model.shown == WINDOW:
            drawing.draw_path(self.viewer, self.model, self.place)

    def _on_slice(self, *_: Any) -> None:
        if self.model.shown == SLICE and self.place is not None and self._source_there():
            drawing.draw_path(self.viewer, self.model, self.place)

    def _source_there(self) -> bool:
        return self.place is not None and any(layer.name == self.place.name for layer in self.viewer.layers)

    # ---- the pointer

    def _on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if not self.model.picking or self.place is None or self.subject is None or event.button != 1:
            return
        self._pick(event.position)
        yield
        while event.type == "mouse_move":
            if self.subject.device.type == "cuda":  # a CPU does not keep up with a pointer
                self._pick(event.position)
            yield

    def _pick(self, position: tuple[float, ...]) -> None:
        assert self.place is not None
        voxel = drawing.voxel_under(self.viewer, self.place, position)
        if voxel is None or voxel == self.model.voxel:
            return
        self.model.voxel = voxel
        if self.model.walk is not None:
            self.model.step = self.model.walk.step_at(voxel)
        what = ("attention", "field") if self.model.with_field else ("attention",)
        self._ask(self._request("maps", what, tag="pointer"))

    # ---- saving

    @Slot()
    def _ask_view(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the view", "look.png", "Pictures (*.png *.svg)")
        if path:
            self.save_view(Path(path))

    @Slot()
    def _ask_walk(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the walk", "walk.gif", "Animations (*.gif *.mp4)")
        if path:
            self.save_walk(Path(path))

    def save_view(self, path: Path) -> None:
        """Write the canvas as PNG or SVG."""
        self._saved(lambda: saving.save_view(self.viewer, path, self._title()))  # type: ignore[arg-type]

    def save_walk(self, path: Path) -> None:
        """Write the walk as GIF or MP4."""
        self._saved(lambda: saving.save_walk(self.viewer, self.model, path))  # type: ignore[arg-type]

    def _saved(self, save: Any) -> None:
        try:
            self.model.say(f"Saved {save()}.")
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), wrong=True)

    def _title(self) -> str:
        name = self.bundle.bundle.name if self.bundle.bundle else ""
        return f"{name}, {self.model.layer}, path {self.model.direction + 1}"

    # ---- leaving

    def event(self, event: QEvent) -> bool:
        """A widget that is taken out of its window stops its work."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        self._leave()
        super().closeEvent(event)

    def _leave(self) -> None:
        self.model.playing = False
        self.jobs.cancel()
        self.channels.disconnect_from_viewer()
        if self._on_mouse in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self._on_mouse)
        for event, slot in (
            (self.viewer.dims.events.current_step, self._on_slice),
            (self.viewer.dims.events.ndisplay, self._draw),
        ):
            event.disconnect(slot)


def _facts(facts: dict[str, Any]) -> list[str]:
    """The numbers found, as sentences."""
    lines = []
    if "memory" in facts:
        m = facts["memory"]
        lines.append(
            f"Memory: half of the tokens are kept for more than {m['tokens_median']:.0f} tokens, "
            f"{m['mm_median']:.0f} mm as the crow flies."
        )
    if "field" in facts:
        last = facts["field"][-1]
        half, most = last["half_mm"], last["most_mm"]
        lines.append(f"Half of the receptive field lies within {half:.0f} mm, 95% within {most:.0f} mm.")
    for name in ("relevance", "gradient", "integrated"):
        if name in facts:
            f = facts[name]
            lines.append(
                f"{facts['explained'][:1].upper()}{facts['explained'][1:]}: answer {f['answer']:.3g}, the map's sum "
                f"{f['sum']:.3g}, biases {f['constants']:.3g}."
            )
    return lines


def _heading(text: str) -> QLabel:
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 6, 0, 0)
    return label


def _scrolled(widget: QWidget) -> QScrollArea:
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setWidget(widget)
    return area
