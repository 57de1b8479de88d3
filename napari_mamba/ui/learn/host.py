"""What learning needs of Qt, whether the dock is open or not: events from the child's thread, previews as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal, Slot

from napari_mamba import io
from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.layers import KEY, placement
from napari_mamba.ui.learn.child import Child
from napari_mamba.ui.learn.session import IDLE, LearnSession
from napari_mamba.ui.run.session import itself, session_of
from napari_mamba.ui.widgets.background import Background

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_mamba.io.labels.reading import LabelMap

make_child: Any = Child
"""What trainings go to; tests put a script here."""


class LearnHost(QObject):
    """Runs a viewer's training; `learn_host_of` gives that of a viewer."""

    _event = Signal(object)

    def __init__(self, session: LearnSession, parent: QObject | None = None):
        super().__init__(parent)
        self.session = session
        self.preview: Labels | None = None
        self.watched = 0
        self._background = Background(self)
        self._event.connect(self._on_event)
        session.start_child = self._start_child
        session.previewed.connect(self._on_preview)

    def start(self) -> None:
        """Write the pairs in a thread, then start the command."""
        if not self.session.ready:
            return
        self.session.begin_staging()
        self.preview = None  # an earlier one stays in the viewer, as it was corrected
        self._background.ask(self._stage, self._on_staged)

    def _stage(self) -> Any:
        try:
            return self.session.stage_all()
        except NapariMambaError as error:
            return str(error)

    def _on_staged(self, found: list[str] | str | None) -> None:
        if isinstance(found, list):
            self.session.run(found)
        else:
            self.session.fail(found or "the images could not be written")

    def _start_child(self, words: Sequence[str]) -> Any:
        return make_child(words, self._event.emit)

    @Slot(object)
    def _on_event(self, event: dict[str, Any]) -> None:
        self.session.take(event)
        if self.session.state == IDLE and not self.watched and self.session.last is not None:
            show_info(self.session.last[1])

    # ---- previews

    def _on_preview(self, path: str) -> None:
        self._background.ask(lambda: io.read_labels(path), self._show)

    def _show(self, found: LabelMap | None) -> None:
        """Put a preview over its image, in the place of the one before."""
        pair = self.session.shown
        if found is None or pair is None or pair.image not in self.session.viewer.layers:
            return
        place = placement(pair.image)
        data = np.ascontiguousarray(place.to_layer_axes(np.asarray(found.volume.data)[0]))
        if self.preview is not None and self.preview in self.session.viewer.layers:
            self.preview.data = data
            return
        self.preview = preview_layer(found, data, place)
        layers = self.session.viewer.layers
        selected = set(layers.selection)
        self.session.viewer.add_layer(self.preview)
        if selected:
            layers.selection = selected

    def use_preview(self) -> bool:
        """Take the preview, as it was corrected, for its image's labels; whether there is one."""
        if self.preview is None or self.preview not in self.session.viewer.layers:
            return False
        self.session.correct_with(self.preview)
        return True

    def close(self) -> None:
        """The viewer is gone."""
        self.session.close()


def preview_layer(found: LabelMap, data: np.ndarray, place: Any) -> Labels:
    """Labels that the dock Results can correct, with the classes' names and colours."""
    from napari.layers import Labels

    from napari_mamba.bundles import LabelClass
    from napari_mamba.bundles.spec import default_color
    from napari_mamba.ui.results.classes.edits import remember_edits
    from napari_mamba.ui.results.classes.record import set_classes
    from napari_mamba.ui.results.layers import class_colormap

    record = {**place.geometry, "role": "answer", "source": place.name}
    layer = Labels(data, name=f"preview: {place.name}", opacity=0.5, metadata={KEY: record}, **place.transforms)
    classes = [LabelClass(c.index, c.name, c.color or default_color(c.index)) for c in found.classes if c.index]
    set_classes(layer, classes)
    layer.colormap = class_colormap(classes)
    remember_edits(layer)
    return layer


_hosts: dict[int, LearnHost] = {}


def learn_host_of(viewer: ViewerModel) -> LearnHost:
    """The host of a viewer, made at the first call and kept until the viewer's window is closed."""
    viewer = itself(viewer)
    key = id(viewer)
    if key not in _hosts:
        host = _hosts[key] = LearnHost(LearnSession(viewer, session_of(viewer).library))

        def closed(*_: Any) -> None:
            if _hosts.pop(key, None) is not None:
                host.close()

        window = getattr(getattr(viewer, "window", None), "_qt_window", None)
        if window is not None:
            window.destroyed.connect(closed)
    return _hosts[key]
