"""The part of the panel that looks inside a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..asking import Report
from ..compute.following import Follower
from ..compute.look import MAPS
from ..nodes import points
from ..nodes.volumes import Unusable
from ..scripting import Scripting
from . import shown
from .parameters import CHOICES, POINT, Parameters

LAST_LAYER, ANY_CLASS = "the last one that scans places", "that of the point"
_PROGRESS_STEPS = 1000


class LookSection:
    """Belongs to `widget.Panel`, which has what is named here."""

    ui: Any
    logic: Scripting
    scene: Any
    host: Any
    parameters: Parameters | None
    draw: Callable[[], None]
    _tick_start: Callable[[], None]
    _show_log: Callable[[str], None]
    _drawing: bool

    def connect_look(self) -> None:
        """Widgets to their methods; the layers of no bundle are known yet."""
        self.layers: dict[str, list[str]] = {}
        ui = self.ui
        for title, of in MAPS.values():
            ui.mapCombo.addItem(f"{title} (of a {of})" if of != "layer" else title)
        for name in ("map", "layer", "point", "class"):
            getattr(ui, name + "Combo").connect("currentIndexChanged(int)", lambda *_: self.look_changed())
        ui.pathSpin.connect("valueChanged(int)", lambda *_: self.look_changed())
        ui.pointSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda *_: self.look_changed())
        ui.lookButton.connect("clicked(bool)", lambda *_: self.look())
        ui.layersButton.connect("clicked(bool)", lambda *_: self.look(list_only=True))
        ui.lookCancelButton.connect("clicked(bool)", lambda *_: self.cancel_look())

    def look_changed(self) -> None:
        """Something was chosen."""
        parameters, ui = self.parameters, self.ui
        if parameters is None or self._drawing:
            return
        parameters["map"] = list(MAPS)[max(ui.mapCombo.currentIndex, 0)]
        parameters["layer"] = str(ui.layerCombo.currentText) if ui.layerCombo.currentIndex > 0 else ""
        parameters["class"] = str(ui.classCombo.currentText) if ui.classCombo.currentIndex > 0 else ""
        parameters["point"] = CHOICES["point"][max(ui.pointCombo.currentIndex, 0)]
        parameters["path"] = int(ui.pathSpin.value)
        parameters.set_reference(POINT, ui.pointSelector.currentNode())
        self.draw()

    def draw_look(self, parameters: Parameters) -> None:
        """Show what is chosen."""
        ui, bundle = self.ui, self.logic.bundles.get(parameters["bundle"])
        ui.mapCombo.setCurrentIndex(list(MAPS).index(parameters["map"]) if parameters["map"] in MAPS else 0)
        _fill(ui.layerCombo, [LAST_LAYER, *self.layers.get(parameters["bundle"], [])], parameters["layer"])
        classes = [str(one.get("name", "")) for one in bundle.classes] if bundle else []
        _fill(ui.classCombo, [ANY_CLASS, *classes], parameters["class"])
        ui.pointCombo.setCurrentIndex(CHOICES["point"].index(parameters["point"]))
        ui.pointSelector.setCurrentNode(parameters.reference(POINT))
        ui.pointSelector.setVisible(parameters["point"] == "markups")
        ui.pathSpin.setValue(parameters["path"])
        ui.classCombo.setEnabled(MAPS.get(parameters["map"], ("", ""))[1] == "class")
        busy = self.logic.core.busy
        reason = shown.why_not(bundle, parameters["bundle"], "one", parameters.inputs(), [], busy)
        for button in (ui.lookButton, ui.layersButton):
            button.setEnabled(not reason)
            button.setToolTip(reason or shown.NOT_CLINICAL)
        ui.lookCancelButton.setEnabled(busy)
        ui.lookBar.setVisible(busy)

    def look(self, list_only: bool = False) -> None:
        """Make the chosen map, or list the layers."""
        parameters = self.parameters
        if parameters is None:
            return
        choices = {"maps": (parameters["map"],), "layer": parameters["layer"], "path": parameters["path"]}
        choices |= {"device": parameters["device"], "list_only": list_only}
        if MAPS.get(parameters["map"], ("", ""))[1] == "class":
            choices["target"] = parameters["class"]
        if list_only:
            choices["layer"] = ""
        bundle = parameters["bundle"]

        def ended(report: Report) -> None:
            self._look_ended(report, bundle, list_only)

        self._show_log("")
        try:
            choices["point"] = self._point(parameters)
            self.logic.start_look(bundle, parameters.inputs(), self._look_progress, ended, **choices)
        except (Unusable, ValueError, OSError) as error:
            self.ui.lookLabel.setText(f"{str(error)[:1].upper()}{str(error)[1:]}.")
            self.host.tell(self.ui.lookLabel.text)
        self._tick_start()
        self.draw()

    def _point(self, parameters: Parameters) -> Any:
        if parameters["point"] == "crosshair":
            return points.crosshair(self.scene)
        if parameters["point"] == "markups":
            node = parameters.reference(POINT)
            if node is None:
                raise Unusable("choose the markups whose first point is asked about")
            return node
        return None

    def cancel_look(self) -> None:
        """Ask it to stop."""
        self.logic.cancel()
        self.ui.lookLabel.setText("Cancelling...")

    def _look_progress(self, follower: Follower) -> None:
        self.ui.lookBar.setValue(round(follower.fraction * _PROGRESS_STEPS))
        self.ui.lookLabel.setText(shown.progress(follower))
        self._show_log("\n".join(follower.log))

    def _look_ended(self, report: Report, bundle: str, list_only: bool) -> None:
        said = report.sentence()
        if list_only and not report.error and not report.cancelled:
            found = list(report.listed.get("layers") or [])
            self.layers[bundle] = [str(one.get("name", "")) for one in found if one.get("grid")]
            said = f"{len(self.layers[bundle])} of {len(found)} layers scan places of the image."
        self.ui.lookLabel.setText(f"{said} {shown.NOT_CLINICAL}")
        self._show_log(report.log or said)
        if report.error:
            self.host.tell(said)
        self.draw()


def _fill(combo: Any, entries: list[str], chosen: str) -> None:
    """Show entries, the first of which stands for nothing chosen, and also a choice that is not among them."""
    entries = entries if not chosen or chosen in entries else [*entries, chosen]
    if [combo.itemText(number) for number in range(combo.count)] != entries:
        combo.clear()
        for text in entries:
            combo.addItem(text)
    combo.setCurrentIndex(entries.index(chosen) if chosen else 0)
