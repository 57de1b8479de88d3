"""The part of the panel about where it computes: checking, bundles, devices, importing, installing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..compute.places import Answer, Question
from ..scripting import Scripting
from .parameters import Parameters


class PlaceSection:
    """Belongs to `widget.Panel`, which has what is named here."""

    ui: Any
    logic: Scripting
    host: Any
    parameters: Parameters | None
    draw: Callable[[], None]
    drop_questions: Callable[[], None]
    _ask: Callable[[Question, Callable[[Answer], None]], None]
    _show_log: Callable[[str], None]
    _tick_start: Callable[[], None]
    _drawing: bool
    _installation: Any
    _place_used: tuple[str, ...]

    def place_key(self) -> tuple[str, ...]:
        """What tells one place from another."""
        assert self.parameters is not None
        return self.parameters["place"], self.parameters["server"], self.host.setting("python")

    def use_place(self, ask: bool = True) -> None:
        """Take the chosen place; with `ask` say whether it is usable, in any case learn its bundles and devices."""
        parameters = self.parameters
        if parameters is None or self.logic.core.busy:
            return
        self._place_used = self.place_key()
        self.logic.use_cluster(self.host.setting("scheduler"))
        try:
            if parameters["place"] == "python":
                self.logic.use_python(self.host.setting("python"))
            elif parameters["place"] == "server":
                self.logic.use_server(parameters["server"], self.host.setting("token " + parameters["server"]))
            else:
                self.logic.use_slicer_python()
        except ValueError as error:
            self.logic.bundles = {}
            self.ui.environmentLabel.setText(f"{str(error)[:1].upper()}{str(error)[1:]}.")
            return
        if not ask and parameters["place"] == "server":
            self.ui.environmentLabel.setText("Press Check to ask the server.")
            return
        self.drop_questions()  # of the place before, whose answers would be taken for this one's
        self.ui.environmentLabel.setText("Checking...")
        self._ask(self.logic.place.ask_version(), self._version_known)

    def _version_known(self, answer: Answer) -> None:
        if answer.error:
            self.ui.environmentLabel.setText(f"Not usable: {answer.error}.")
            return
        self.ui.environmentLabel.setText(f"napari-mamba {answer.value} is there.")
        self._ask(self.logic.place.ask_bundles(), self._bundles_known)
        self._ask(self.logic.place.ask_devices(), self._devices_known)

    def _bundles_known(self, answer: Answer) -> None:
        if answer.error:
            self.ui.environmentLabel.setText(f"Its bundles are not known: {answer.error}.")
            return
        self.logic.bundles = {bundle.name: bundle for bundle in answer.value}
        usable = [bundle.name for bundle in answer.value if bundle.usable]
        if self.parameters is not None and not self.parameters["bundle"] and usable:
            self.parameters["bundle"] = usable[0]
        self.draw()

    def _devices_known(self, answer: Answer) -> None:
        if answer.error or self.parameters is None:
            return
        self._drawing = True
        self.ui.deviceCombo.clear()
        for name in ["auto", *answer.value]:
            self.ui.deviceCombo.addItem(name)
        self._drawing = False
        self.draw()

    def import_checkpoint(self) -> None:
        """Make a bundle of a file that the user names."""
        path = self.host.choose_file("A checkpoint: a zip of nnU-Net results or of a MONAI bundle, or weights")
        place = self.logic.place
        if not path or not hasattr(place, "import_checkpoint"):
            return
        self.ui.environmentLabel.setText("Importing...")
        self._ask(place.import_checkpoint(path), self._imported)

    def _imported(self, answer: Answer) -> None:
        self._show_log(answer.error or answer.value)
        self.ui.environmentLabel.setText(f"Not imported: {answer.error}." if answer.error else "Imported.")
        self._ask(self.logic.place.ask_bundles(), self._bundles_known)

    def install(self) -> None:
        """Install into Slicer's Python, after consent."""
        self._installation = self.host.install(self)
        self._tick_start()

    def _poll_installation(self) -> None:
        ended = self._installation.poll()
        self._show_log("\n".join(self._installation.log))
        if ended is None:
            self.ui.environmentLabel.setText("Installing: see the log.")
            return
        self._installation = None
        self.ui.environmentLabel.setText(f"{ended.error}." if ended.error else "Installed.")
        if not ended.error:
            self.use_place()
