"""The panel: draws the parameters and the logic, and hands clicks to them. It decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..asking import Report
from ..compute.following import Follower
from ..compute.places import Answer, Question
from ..nodes.volumes import Unusable
from ..scripting import Scripting
from . import shown
from .inputs_section import SELECTORS, InputsSection
from .look_section import LookSection
from .parameters import CHOICES, ROI, SEGMENTATION, Parameters, parameters_of
from .place_section import PlaceSection

CHECKS = ("table", "plot", "surfaces", "probabilities", "uncertainty", "residual", "mirror")
COMBOS = ("bundle", "mode", "place", "device", "precision")
LINES = ("tile", "spacing", "server", "token", "scheduler")
HANDED_ON = (
    *("mode", "device", "precision", "tile", "spacing"),
    *("probabilities", "uncertainty", "residual", "table", "plot", "surfaces"),
)
_PROGRESS_STEPS = 1000


class Host(Protocol):
    """What the application does for the panel."""

    def confirm(self, question: str) -> bool: ...

    def tell(self, sentence: str) -> None: ...

    def choose_file(self, title: str) -> str: ...

    def setting(self, name: str) -> str: ...

    def keep_setting(self, name: str, value: str) -> None: ...

    def node_selector(self, parent: Any, changed: Callable[[], None]) -> Any: ...

    def check_nodes(self, selector: Any, nodes: list[Any]) -> None: ...

    def start_timer(self, milliseconds: int, tick: Callable[[], None]) -> Callable[[], None]: ...

    def install(self, panel: Panel) -> Any: ...


class Panel(InputsSection, PlaceSection, LookSection):
    """The module's widgets (`ui`: one attribute a widget of the .ui file) over one logic and one scene."""

    def __init__(self, ui: Any, logic: Scripting, scene: Any, host: Host):
        self.ui, self.logic, self.scene, self.host = ui, logic, scene, host
        self.parameters: Parameters | None = None
        self.selectors: list[tuple[str, Any]] = []
        self.names: list[str] = []
        self._drawing = False
        self._questions: list[tuple[Question, Callable[[Answer], None]]] = []
        self._installation: Any = None
        self._stop_timer: Callable[[], None] | None = None
        self._log_shown = ""
        self._reason: str | None = None
        self._place_used: tuple[str, ...] = ()
        self._connect()
        self.connect_look()
        self.open_scene()

    # ---- the scene's state

    def open_scene(self) -> None:
        """Take the parameters of the scene, and ask the place for its bundles."""
        self.parameters = parameters_of(self.scene)
        if not self.logic.bundles or self.place_key() != self._place_used:
            self.use_place(ask=False)
        self.draw()

    def close_scene(self) -> None:
        """The scene goes: its run ends, and nothing of it is touched any more."""
        self.logic.stop()
        self.parameters = None

    def close(self) -> None:
        """The widget goes: everything ends."""
        self.close_scene()
        self.drop_questions()
        self._tick_stop()

    def _connect(self) -> None:
        actions = {"run": self.run, "cancel": self.cancel, "check": self.use_place, "refresh": self.use_place}
        actions |= {"import": self.import_checkpoint, "install": self.install}
        for name, action in actions.items():
            getattr(self.ui, name + "Button").connect("clicked(bool)", lambda *_, action=action: action())
        signals = {"Combo": "currentIndexChanged(int)", "Check": "toggled(bool)", "Line": "editingFinished()"}
        for kind, names in (("Combo", COMBOS), ("Check", CHECKS), ("Line", LINES)):
            for name in names:
                getattr(self.ui, name + kind).connect(signals[kind], lambda *_: self.changed())
        self.ui.pythonPath.connect("currentPathChanged(QString)", lambda *_: self.changed())
        for name in SELECTORS:
            getattr(self.ui, name).connect("currentNodeChanged(vtkMRMLNode*)", lambda *_: self.changed())
        self.ui.batchSelector.connect("checkedNodesChanged()", lambda *_: self.changed())

    # ---- from the widgets to the parameters

    def changed(self) -> None:
        """Something was chosen."""
        parameters, ui = self.parameters, self.ui
        if parameters is None or self._drawing:
            return
        before = (parameters["place"], parameters["server"])
        if 0 <= ui.bundleCombo.currentIndex < len(self.names):
            parameters["bundle"] = self.names[ui.bundleCombo.currentIndex]
        parameters["mode"] = CHOICES["mode"][max(ui.modeCombo.currentIndex, 0)]
        parameters["place"] = CHOICES["place"][max(ui.placeCombo.currentIndex, 0)]
        parameters["device"] = ui.deviceCombo.currentText or "auto"
        parameters["precision"] = ui.precisionCombo.currentText or "auto"
        for name in CHECKS:
            parameters[name] = bool(getattr(ui, name + "Check").checked)
        for name in ("tile", "spacing", "server"):
            parameters[name] = str(getattr(ui, name + "Line").text).strip()
        for name, role in SELECTORS.items():
            parameters.set_reference(role, getattr(ui, name).currentNode())
        for channel, (_, selector) in enumerate(self.selectors):
            parameters.set_input(channel, selector.currentNode())
        parameters.set_batch(list(ui.batchSelector.checkedNodes()))
        self.host.keep_setting("python", str(ui.pythonPath.currentPath))
        self.host.keep_setting("token " + parameters["server"], str(ui.tokenLine.text))
        # Not of the scene: one from elsewhere must not say where images go, and a scheduler is trusted like a program.
        self.host.keep_setting("scheduler", str(ui.schedulerLine.text).strip())
        self.logic.use_cluster(self.host.setting("scheduler"))
        if before != (parameters["place"], parameters["server"]):
            self.use_place(ask=False)
        self.draw()

    # ---- from the parameters to the widgets

    def draw(self) -> None:
        """Show everything as it is."""
        if self.parameters is None or self._drawing:
            return
        self._drawing = True
        try:
            self._draw_choices(self.parameters)
            self.draw_inputs(self.parameters)
            self._draw_run(self.parameters)
            self.draw_look(self.parameters)
        finally:
            self._drawing = False

    def _draw_choices(self, parameters: Parameters) -> None:
        ui = self.ui
        entries = shown.bundle_entries(list(self.logic.bundles.values()), parameters["bundle"])
        if [name for _, name in entries] != self.names:
            self.names = [name for _, name in entries]
            ui.bundleCombo.clear()
            for text, _ in entries:
                ui.bundleCombo.addItem(text)
        if parameters["bundle"] in self.names:
            ui.bundleCombo.setCurrentIndex(self.names.index(parameters["bundle"]))
        bundle = self.logic.bundles.get(parameters["bundle"])
        ui.bundleText.setText(bundle.shown() if bundle else "")
        ui.cardText.setMarkdown(bundle.card if bundle else "")
        for name in ("mode", "place"):
            getattr(ui, name + "Combo").setCurrentIndex(CHOICES[name].index(parameters[name]))
        for name in ("device", "precision"):
            combo = getattr(ui, name + "Combo")
            if combo.findText(parameters[name]) < 0:
                combo.addItem(parameters[name])
            combo.setCurrentIndex(combo.findText(parameters[name]))
        for name in CHECKS:
            getattr(ui, name + "Check").setChecked(parameters[name])
        for name in ("tile", "spacing", "server"):
            getattr(ui, name + "Line").setText(parameters[name])
        ui.pythonPath.setCurrentPath(self.host.setting("python"))
        ui.tokenLine.setText(self.host.setting("token " + parameters["server"]))
        ui.schedulerLine.setText(self.host.setting("scheduler"))
        place = parameters["place"]
        there = {("pythonPath",): place == "python", ("serverLine", "tokenLine"): place == "server"}
        there[("schedulerLine",)] = place != "server"
        for names, on in there.items():
            for name in names:
                getattr(ui, name).setVisible(on)
                getattr(ui, name + "Label").setVisible(on)
        ui.installButton.setVisible(place == "slicer")
        ui.importButton.setEnabled(place != "server")

    def _draw_run(self, parameters: Parameters) -> None:
        busy = self.logic.core.busy
        bundle = self.logic.bundles.get(parameters["bundle"])
        reason = shown.why_not(
            bundle, parameters["bundle"], parameters["mode"], parameters.inputs(), parameters.batch(), busy
        )
        self.ui.runButton.setEnabled(not reason)
        self.ui.runButton.setToolTip(reason or shown.NOT_CLINICAL)
        self.ui.cancelButton.setEnabled(busy)
        self.ui.progressBar.setVisible(busy)
        if not busy and reason != self._reason and self._reason != shown.BUSY:  # else how the run ended stays there
            self.ui.statusLabel.setText(f"{reason or 'Ready.'} {shown.NOT_CLINICAL}")
        self._reason = reason

    # ---- runs

    def run(self) -> None:
        """Begin what is chosen."""
        parameters = self.parameters
        if parameters is None:
            return
        mode = parameters["mode"]
        volumes = parameters.batch() if mode == "list" else parameters.inputs()
        choices = {name: parameters[name] for name in HANDED_ON}
        choices |= {"region": parameters.reference(ROI), "segmentation": parameters.reference(SEGMENTATION)}
        if not parameters["mirror"]:
            choices["mirror"] = False
        self._show_log("")
        try:
            self.logic.start(parameters["bundle"], volumes, self._progress, self._ended, **choices)
        except (Unusable, ValueError, OSError) as error:
            self.ui.statusLabel.setText(f"{str(error)[:1].upper()}{str(error)[1:]}.")
            self.host.tell(self.ui.statusLabel.text)
        self._tick_start()
        self.draw()

    def cancel(self) -> None:
        """Ask the run to stop."""
        self.logic.cancel()
        self.ui.statusLabel.setText("Cancelling...")

    def _progress(self, follower: Follower) -> None:
        self.ui.progressBar.setValue(round(follower.fraction * _PROGRESS_STEPS))
        self.ui.statusLabel.setText(shown.progress(follower))
        self._show_log("\n".join(follower.log))

    def _ended(self, report: Report) -> None:
        self.ui.statusLabel.setText(f"{report.sentence()} {shown.NOT_CLINICAL}")
        self._show_log(report.log or report.sentence())
        if report.error:
            self.host.tell(report.sentence())
        self.draw()

    def _show_log(self, text: str) -> None:
        if text != self._log_shown:
            self._log_shown = text
            self.ui.logText.setPlainText(text)

    # ---- time

    def _ask(self, question: Question, then: Callable[[Answer], None]) -> None:
        self._questions.append((question, then))
        self._tick_start()

    def drop_questions(self) -> None:
        """Nobody waits for their answers any more."""
        for question, _ in self._questions:
            question.stop()
        self._questions.clear()

    def _tick_start(self) -> None:
        if self._stop_timer is None:
            self._stop_timer = self.host.start_timer(100, self.tick)

    def _tick_stop(self) -> None:
        if self._stop_timer is not None:
            self._stop_timer()
            self._stop_timer = None

    def tick(self) -> None:
        """Ten times a second while something goes on."""
        self.logic.core.poll()
        for pair in list(self._questions):
            answer = pair[0].poll()
            if answer is not None:
                self._questions.remove(pair)
                pair[1](answer)
        if self._installation is not None:
            self._poll_installation()
        if not (self._questions or self._installation or self.logic.core.busy):
            self._tick_stop()
