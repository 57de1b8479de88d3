"""The dock widget "Look inside": draws the model and hands clicks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Slot
from qtpy.QtWidgets import (
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
from napari_mamba.ui.look_inside.jobs import POINTER, Jobs
from napari_mamba.ui.look_inside.model import LookModel
from napari_mamba.ui.look_inside.parts.maps import MapsBox
from napari_mamba.ui.look_inside.parts.opening import OpeningBox
from napari_mamba.ui.look_inside.parts.orders import OrdersBox
from napari_mamba.ui.look_inside.parts.saving_buttons import SavingButtons
from napari_mamba.ui.look_inside.parts.tree import LayerTree
from napari_mamba.ui.look_inside.parts.walk import WalkBox
from napari_mamba.ui.look_inside.requests import Answer, Request
from napari_mamba.ui.look_inside.scene import Scene
from napari_mamba.ui.look_inside.sentences import facts_told, sentence
from napari_mamba.ui.run.views.own_choice import DISCLAIMER
from napari_mamba.ui.widgets.docks import DockPage
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.engine import Progress
    from napari_mamba.explain.recorded.subject import Subject


class LookInsideWidget(DockPage):
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
        self.scene = Scene(napari_viewer, self.model)
        self.jobs = Jobs(self)
        self.subject: Subject | None = None
        self.opening = OpeningBox(napari_viewer, self.model)
        self.tree = LayerTree()
        self.walk = WalkBox(self.model)
        self.maps = MapsBox(self.model)
        self.orders = OrdersBox(napari_viewer)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop what is being computed; what is shown stays")
        self.saving = SavingButtons(napari_viewer, self.model, self._title, self.scene.follow)
        self.message = Notice(napari_viewer)
        self._build()
        self._connect()
        self._on_viewer_layers()
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
        parts: tuple[QWidget, ...] = (self.opening, _heading("Layer"), self.tree)
        parts += (_heading("The scan's path"), self.walk)
        parts += (_heading("Maps of the layer"), self.maps, disclaimer)
        for part in parts:
            column.addWidget(part)
        column.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.addTab(_scrolled(network), "A model")
        self.tabs.addTab(_scrolled(self.orders), "Scan orders")
        below = QHBoxLayout()
        below.addWidget(self.saving, 2)
        below.addWidget(self.cancel_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.bar)
        layout.addWidget(self.message)
        layout.addLayout(below)

    def _connect(self) -> None:
        self.opening.chosen.connect(self._on_bundle)
        self.opening.opened.connect(self._open)
        self.tree.chosen.connect(lambda name: setattr(self.model, "layer", name))
        self.maps.wanted.connect(self.make)
        self.cancel_button.clicked.connect(self.jobs.cancel)
        self.tabs.currentChanged.connect(lambda i: self.orders.refresh() if i == 1 else None)
        self.jobs.progressed.connect(self._on_progress)
        self.jobs.answered.connect(self._on_answer)
        self.scene.picked.connect(self._on_picked)
        events = self.model.events
        events.layers.connect(self.tree.show_layers)
        events.layer.connect(self._on_layer)
        events.direction.connect(self._follow)
        events.walk.connect(self._refresh)
        events.message.connect(self._on_message)
        events.busy.connect(self._refresh)
        for event in self._of_layers():
            event.connect(self._on_viewer_layers)

    def _of_layers(self) -> tuple[Any, ...]:
        events = self.viewer.layers.events
        return events.inserted, events.removed, events.renamed

    def _refresh(self, *_: Any) -> None:
        self.opening.refresh()
        ready = self.subject is not None and bool(self.model.layer)
        for button in self.maps.buttons.values():
            button.setEnabled(ready)
        self.maps.pick.setEnabled(ready)
        self.saving.walk.setEnabled(self.model.walk is not None)
        self.bar.setVisible(bool(self.model.busy))
        self.cancel_button.setEnabled(bool(self.model.busy))

    def _on_message(self, text: str) -> None:
        self.message.say(text, "error" if self.model.wrong else "hint")

    def _on_viewer_layers(self, *_: Any) -> None:
        from napari.layers import Labels

        self.maps.show_regions([layer.name for layer in self.viewer.layers if isinstance(layer, Labels)])

    # ---- opening

    def _on_bundle(self) -> None:
        if self.opening.bundle is not None:
            self.maps.set_classes([c.name for c in self.opening.bundle.classes], self.opening.bundle.task)

    def _open(self, volume: Any, place: Any, bundle: Any) -> None:
        if self.subject is not None:
            self.subject.forget()  # the next one needs the memory
        self.scene.place = place
        self.model.voxel = None
        self.maps.curves.show_curves({})
        self._ask(Request("open", volume=volume, bundle=bundle))

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
        regions = self.scene.regions(model.regions) if "knockout" in what else None
        return Request(
            kind, subject=self.subject, layer=model.layer, direction=model.direction, voxel=model.voxel, what=what,
            target=model.target, regions=regions, whole=model.whole, growth=tag != POINTER,
            prepares=tag == POINTER and model.with_field, tag=tag,
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
        if self.subject is None or not self.model.layer:
            return
        try:
            self._ask(self._request("maps", (name,)))
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), wrong=True)

    def _on_picked(self) -> None:
        if self.subject is not None:
            self._ask(self._request("maps", ("attention",), tag=POINTER))

    # ---- answers

    @Slot(object)
    def _on_progress(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total if progress.total > 1 else 0)
        self.bar.setValue(progress.done)

    @Slot(object)
    def _on_answer(self, answer: Answer) -> None:
        request = answer.request
        self.model.busy = "waiting" if self.jobs.waits else ""
        if answer.error:
            self.model.say(answer.error, wrong=True)
        elif answer.cancelled:
            self.model.say("" if request.tag == POINTER else "Cancelled.")
        elif answer.subject is not None:
            self._on_opened(answer.subject)
        elif request.subject is not self.subject:
            pass  # of the model before
        elif answer.walk is not None:
            if (request.layer, request.direction) == (self.model.layer, self.model.direction):
                self.model.set_walk(answer.walk)
        elif answer.found is not None:
            self._show(answer)
        self._refresh()

    def _on_opened(self, subject: Subject) -> None:
        self.subject = subject
        self.scene.follows = subject.device.type == "cuda"  # a CPU does not keep up with a pointer
        self.maps.set_tiles(len(subject.tiling.starts))
        self.model.open(subject.layers)
        if not self.model.layer:
            self.model.say("This model has no scan over places of the image: choose another one.", wrong=True)

    def _show(self, answer: Answer) -> None:
        assert answer.found is not None
        self.scene.show(answer.found)
        if "deletion" in answer.found.curves:
            self.maps.curves.show_curves(answer.found.curves)
        lines = [*facts_told(answer.found.facts), *answer.found.sentences]
        if lines:
            self.model.say("\n".join(lines))
        request = answer.request
        if request.tag == POINTER and self.model.with_field and "field" not in request.what and not self.jobs.waits:
            self._ask(self._request("maps", ("field",), tag=POINTER))  # the attention is there at once, this later

    # ---- leaving

    def _title(self) -> str:
        name = self.opening.bundle.name if self.opening.bundle else ""
        return f"{name}, {self.model.layer}, path {self.model.direction + 1}"

    def leave(self) -> None:
        """Stop the work, and stop listening to the viewer."""
        self.model.playing = False
        self.jobs.cancel()
        self.opening.leave()
        self.scene.leave()
        if self.subject is not None:
            self.subject.forget()
        for event in self._of_layers():
            event.disconnect(self._on_viewer_layers)


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
