"""Draws `Options`: the device, and folded away below it everything else that a run can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QSignalBlocker, Slot
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QStyle,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_mamba.engine import PRECISIONS
from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.run.choice.options import suited_options
from napari_mamba.ui.run.process.devices import automatic
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.run.views.level_view import LevelView
from napari_mamba.ui.run.views.region_view import RegionView
from napari_mamba.ui.run.views.trial_view import TrialView
from napari_mamba.ui.widgets.forms import combo_box, row_label
from napari_mamba.ui.widgets.theme import show_when_empty

if TYPE_CHECKING:
    from napari_mamba.server.client.known import Server
    from napari_mamba.ui.run.host import RunHost

CPU_NOTICE = "Runs on the CPU: small images take seconds, large ones many minutes. A GPU is much faster."
OWN = "the model's own"
ELSEWHERE = "elsewhere"
"""The entry of the list of devices that asks for another computer."""
AXES = (
    ("The model's own", None),
    ("z (axial)", "z"),
    ("y (coronal)", "y"),
    ("x (sagittal)", "x"),
    ("All three, averaged", "all"),
)
PROFILES = (
    ("As the file says", None),
    ("Of a 3D acquisition (sinc)", "sinc"),
    ("Boxes", "box"),
    ("Gaussian", "gaussian"),
    ("Unknown", "unknown"),
)
TICKS = (
    ("mirror", "Average over mirrored copies",
     "Runs the model on mirrored copies too: up to 8 times slower, a little more accurate."),
    ("uncertainty", "Uncertainty map", "Adds an image layer of the entropy of the class probabilities."),
    ("spread", "Uncertainty map",
     "Adds an image layer of the answer's standard deviation over mirrored copies: up to 8 times slower."),
    ("evidence", "Map of where it looked", "Adds an image layer of what each voxel adds to the likeliest class."),
    ("probabilities", "Probability maps", "Adds an image layer of each class's probability: much memory."),
    ("residual", "Difference to the input", "Adds an image layer of the input minus the output."),
    ("clip", "Keep the input's range", "Cuts off values outside of the range of the input."),
    ("deterministic", "The same bytes each time",
     "On a GPU: deterministic algorithms, which are slower. On the CPU it is always so."),
)  # fmt: skip
TEXTS = (
    ("strength", "Strength", "In %, 0 to 150: how much of the model's change is made.", "100: the model's answer"),
    ("spacing", "Voxel size", "In mm: one number, or three for z, y and x, such as 1,0.8,0.8.", "the shortest side"),
    ("tile", "Tile", "Voxels that the network sees at once, such as 64 or 32,64,64. Smaller needs less memory.", OWN),
    (
        "overlap",
        "Overlap",
        "Share of a tile that its neighbour covers too, 0 to 0.9. More is slower.",
        OWN,
    ),
    ("seed", "Seed", "A whole number from 0 on: another seed gives another sample, the same one the same again.", "0"),
    ("batch_size", "Batch", "Tiles that go through the network together. More needs more memory.", OWN),
    ("replace_nonfinite", "NaN becomes", "A value to put in the place of NaN and infinite voxels.", "refused"),
)
TABLE = (
    ("table", "Table", "A CSV that has the columns the model takes beside the image, a row a person.", "a CSV file"),
    ("table_row", "Row", "What a cell of the image's row says: by default the image's name.", "the image's name"),
)
"""Never folded away: a model that takes a table does not run without."""


class OptionsView(QWidget):
    """Shows those options that the chosen bundle can be given."""

    def __init__(self, host: RunHost, parent: QWidget | None = None):
        super().__init__(parent)
        self._host = host
        self.session = host.session
        self.options = host.session.options
        self.device = combo_box("Where the model runs. Automatic takes a GPU where there is one.")
        self.notice = QLabel(CPU_NOTICE)
        self.notice.setWordWrap(True)
        self.precision = combo_box(
            "Precision of the network's arithmetic. Automatic: float32 on a CPU, float16 on a GPU."
        )
        for name in PRECISIONS:
            self.precision.addItem("Automatic" if name == "auto" else name, name)
        self.axis = combo_box(
            "This model runs slice by slice. Cut along all three axes and averaged (2.5D) it takes three times as long "
            "and is less easily misled by a single slice. The names hold for images that lie upright in the viewer."
        )
        for title, axis in AXES:
            self.axis.addItem(title, axis)
        self.slice_profile = combo_box(
            "What each slice is of the image across it, where it is known: the answer then agrees with every slice. "
            "Files seldom say it; a DICOM series may say that it is 3D. A wrong choice is worse than none."
        )
        for title, profile in PROFILES:
            self.slice_profile.addItem(title, profile)
        self.region = RegionView(host.session)
        self.level = LevelView(host.session)
        self.trial = TrialView(host, self)
        self.ticks: dict[str, QCheckBox] = {}
        self.texts: dict[str, QLineEdit] = {}
        self._rows: dict[str, list[QWidget]] = {}
        self._build()
        self._connect()
        self.draw()

    def _build(self) -> None:
        inner = QWidget()
        form = QFormLayout(inner)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self._add(form, "region", "Region", self.region)
        self.region.combo.setAccessibleName("Region")
        self._add(form, "level", "Level", self.level)
        self._add(form, "axis", "Slices along", self.axis)
        self._add(form, "slice_profile", "Slices are", self.slice_profile)
        for name, title, tip in TICKS:
            tick = self.ticks[name] = QCheckBox(title)
            tick.setToolTip(tip)
            form.addRow(tick)
            self._rows[name] = [tick]
        self._add(form, "precision", "Precision", self.precision)
        for name, title, tip, empty in TEXTS:
            self._add_text(form, name, title, tip, empty)
        self.folded = QCollapsible("More options", expandedIcon="▾", collapsedIcon="▸")
        self.folded.setContent(inner)
        self.folded.layout().setContentsMargins(0, 0, 0, 0)
        self.folded.collapse(animate=False)
        self.folded.toggled.connect(inner.setVisible)  # folded, it would only be of no height, and Tab still go there
        inner.hide()
        toggle = self.folded.toggleButton()
        toggle.setToolTip("Region, maps, precision, tiles: what is rarely changed")
        toggle.setAccessibleName("More options")
        first = QFormLayout()
        first.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self._add(first, "device", "Device", self.device)
        for name, title, tip, empty in TABLE:
            self._add_text(first, name, title, tip, empty)
        browse = self.texts["table"].addAction(
            self.style().standardIcon(QStyle.StandardPixmap.SP_DirOpenIcon), QLineEdit.ActionPosition.TrailingPosition
        )
        browse.setToolTip("Choose the table…")
        browse.triggered.connect(self._ask_table)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self.notice)
        layout.addWidget(self.trial)
        layout.addWidget(self.folded)

    def _add_text(self, form: QFormLayout, name: str, title: str, tip: str, empty: str) -> None:
        text = self.texts[name] = QLineEdit()
        text.setToolTip(tip)
        show_when_empty(text, empty, self.session.viewer)
        text.setClearButtonEnabled(True)
        self._add(form, name, title, text)

    def _ask_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "The table beside the images", "", "Tables (*.csv *.tsv *.txt)")
        if path:
            self.texts["table"].setText(path)

    def _add(self, form: QFormLayout, name: str, title: str, widget: QWidget) -> None:
        label = row_label(title)
        label.setBuddy(widget)
        widget.setAccessibleName(title)
        form.addRow(label, widget)
        self._rows[name] = [label, widget]

    def _connect(self) -> None:
        for name in ("device", "precision", "axis", "slice_profile"):
            combo: QComboBox = getattr(self, name)
            combo.currentIndexChanged.connect(lambda _, n=name, c=combo: self._set(n, c.currentData()))
        self.device.activated.connect(self._on_device)
        for name, tick in self.ticks.items():
            tick.toggled.connect(lambda on, n=name: self._set(n, on))
        for name, text in self.texts.items():
            text.textChanged.connect(lambda value, n=name: self._set(n, value))
        self._host.devices_known.connect(self.draw)
        self.session.bundle_changed.connect(self.draw)
        self.session.inputs.changed.connect(self._on_inputs)
        self.options.events.connect(self._on_options)

    def disconnect_from_model(self) -> None:
        """The dock is closed; the session stays."""
        self.trial.disconnect_from_model()
        self.session.bundle_changed.disconnect(self.draw)
        self.session.inputs.changed.disconnect(self._on_inputs, missing_ok=True)
        self.options.events.disconnect(self._on_options)
        self.region.disconnect_from_model()

    @property
    def stops(self) -> list[QWidget]:
        """What is folded away, from the top to the bottom."""
        texts = [self.texts[name] for name, *_ in TEXTS]
        return [
            self.region.combo,
            self.level.combo,
            self.axis,
            self.slice_profile,
            *self.ticks.values(),
            self.precision,
            *texts,
        ]

    @property
    def effective_device(self) -> str:
        """The device a run would use now; empty until the devices are known."""
        return self.session.device if self.session.devices else ""

    def _set(self, name: str, value: Any) -> None:
        if value != ELSEWHERE:
            setattr(self.options, name, value)

    def _on_device(self, index: int) -> None:
        if self.device.itemData(index) == ELSEWHERE:
            self.ask_elsewhere()

    def ask_elsewhere(self) -> None:
        """Let the user name another computer, and run there from now on."""
        from napari_mamba.ui.run.views.elsewhere_dialog import ElsewhereDialog

        dialog = ElsewhereDialog(self.session.viewer, self)
        if dialog.exec():
            self.use(dialog.server)
        else:
            self._draw_devices()

    def use(self, server: Server) -> None:
        """Remember a server, and run there."""
        try:
            self.session.servers.add(server)
            self.options.device = server.address
        except NapariMambaError as error:
            show_error(sentence(str(error)))
        self._draw_devices()

    def _on_inputs(self) -> None:
        self.draw()

    def _on_options(self, _: Any = None) -> None:
        self.draw()

    @Slot()
    def draw(self) -> None:
        """Show the options as they are, and those that suit the bundle."""
        self._draw_devices()
        self.region.draw()
        self.level.draw()
        bundle = self.session.bundle
        several = {"level"} if self.level.sizes else set()
        suited = (
            suited_options(bundle) | several | {"device", "precision", "region", "replace_nonfinite", "deterministic"}
        )
        for name, widgets in self._rows.items():
            for widget in widgets:
                widget.setVisible(name in suited)
        for name in ("precision", "axis", "slice_profile"):
            combo: QComboBox = getattr(self, name)
            _choose(combo, getattr(self.options, name))
        for name, tick in self.ticks.items():
            on = self.options.mirrored(bundle) if name == "mirror" and bundle else bool(getattr(self.options, name))
            blocker = QSignalBlocker(tick)
            tick.setChecked(on)
            del blocker
        for name, text in self.texts.items():
            if text.text() != getattr(self.options, name):
                blocker = QSignalBlocker(text)
                text.setText(getattr(self.options, name))
                del blocker

    def _draw_devices(self) -> None:
        found = self.session.devices
        blocker = QSignalBlocker(self.device)
        self.device.clear()
        best = next((one.title for one in found if one.name == automatic(found)), "")
        self.device.addItem(f"Automatic: {best}" if best else "Automatic", "auto")
        for one in found:
            self.device.addItem(one.title, one.name)
        known = {"auto", *(one.name for one in found)}
        for server in self.session.servers.servers:
            self.device.addItem(f"Elsewhere: {server.address.partition('://')[2]}", server.address)
            known.add(server.address)
        for address in dict.fromkeys(filter(None, (self.session.scheduler, self.options.cluster))):
            self.device.addItem(f"Cluster: {address.partition('://')[2]}", address)
            known.add(address)
        if self.options.device not in known:
            missing = f"{self.options.device}: not on this computer" if found else self.options.device
            self.device.addItem(missing, self.options.device)
        self.device.insertSeparator(self.device.count())
        self.device.addItem("A computer elsewhere…", ELSEWHERE)
        del blocker
        _choose(self.device, self.options.device)
        self.notice.setVisible(self.effective_device == "cpu")


def _choose(combo: QComboBox, value: Any) -> None:
    blocker = QSignalBlocker(combo)
    combo.setCurrentIndex(next((i for i in range(combo.count()) if combo.itemData(i) == value), 0))
    del blocker
