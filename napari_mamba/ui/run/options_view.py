"""Where and how a run computes: device, precision, mirroring, uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_mamba.engine import PRECISIONS, RunOptions, available_devices
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.widgets.forms import combo_box, row_label

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

CPU_NOTICE = "Runs on the CPU: small images take seconds, large ones many minutes. A GPU is much faster."

AXES = (
    ("The model's own", None),
    ("z (axial)", "z"),
    ("y (coronal)", "y"),
    ("x (sagittal)", "x"),
    ("All three, averaged", "all"),
)
ENTROPY = "Adds an image layer of the entropy of the class probabilities, voxel by voxel."
SPREAD = "Adds an image layer of the answer's standard deviation over mirrored copies: up to 8 times slower."
EVIDENCE = "Adds an image layer of what each voxel adds to the likeliest class."


class OptionsBox(QWidget):
    """The device, and folded away below it what is rarely changed.

    Signals
    -------
    devices_known
        The devices of this machine are listed. Asking for them imports torch, so a worker thread does it.
    """

    devices_known = Signal()

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        chosen = preferences()
        self.device = combo_box("Where the model runs. Automatic takes a GPU where there is one.")
        self.device.addItem("Automatic", "auto")
        self.notice = QLabel(CPU_NOTICE)
        self.notice.setWordWrap(True)
        self.notice.hide()
        self.precision = combo_box(
            "Precision of the network's arithmetic. Automatic: float32 on a CPU, float16 on a GPU."
        )
        for name in PRECISIONS:
            self.precision.addItem("Automatic" if name == "auto" else name, name)
        self.precision.setCurrentIndex(max(self.precision.findData(chosen.precision), 0))
        self.axis = combo_box(
            "This model runs slice by slice. Cut along all three axes and averaged (2.5D) it takes three times as long "
            "and is less easily misled by a single slice. The names hold for images that lie upright in the viewer."
        )
        for title, axis in AXES:
            self.axis.addItem(title, axis)
        self.axis_label = row_label("Slices along")
        self.mirror = QCheckBox("Average over mirrored copies")
        self.mirror.setToolTip("Runs the model on mirrored copies too: up to 8 times slower, a little more accurate.")
        self.uncertainty = QCheckBox("Uncertainty map")
        self.uncertainty.setToolTip(ENTROPY)
        self.uncertainty.setChecked(chosen.uncertainty)

        inner = QWidget()
        form = QFormLayout(inner)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow(row_label("Precision"), self.precision)
        form.addRow(self.axis_label, self.axis)
        form.addRow(self.mirror)
        form.addRow(self.uncertainty)
        self.folded = QCollapsible("More options", expandedIcon="▾", collapsedIcon="▸")
        self.folded.setContent(inner)
        self.folded.layout().setContentsMargins(0, 0, 0, 0)
        self.folded.collapse(animate=False)

        first = QFormLayout()
        first.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        first.addRow(row_label("Device"), self.device)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self.notice)
        layout.addWidget(self.folded)

        self._wanted = chosen.device
        self._devices: list[str] = []
        self.device.currentIndexChanged.connect(self._on_device)
        self._worker: Any = create_worker(_devices, _start_thread=False, _ignore_errors=True)
        self._worker.returned.connect(self._on_devices)
        self._worker.start()

    @property
    def effective_device(self) -> str:
        """The device a run would use now; empty until the devices are known."""
        name = self.device.currentData()
        return self._auto() if name == "auto" else name

    def set_bundle(self, bundle: Bundle | None) -> None:
        """Offer what the bundle can do."""
        for part in (self.axis_label, self.axis):
            part.setVisible(takes_slices(bundle))
        mirrored = bundle is not None and bool(bundle.tile.mirror_axes)
        self.mirror.setVisible(mirrored)
        self.mirror.setChecked(mirrored and bundle.task != "restoration")
        self.uncertainty.setVisible(bundle is not None and is_uncertain(bundle))
        looks = bundle is not None and bundle.task == "classification"
        self.uncertainty.setText("Map of where it looked" if looks else "Uncertainty map")
        restores = bundle is not None and bundle.task == "restoration"
        self.uncertainty.setToolTip(EVIDENCE if looks else SPREAD if restores else ENTROPY)

    def options(self, bundle: Bundle, order: Sequence[int] = (0, 1, 2)) -> RunOptions:
        """The choices as the engine takes them; `order` is the volume's axis on each axis of the layer."""
        axis = self.axis.currentData() if takes_slices(bundle) else None
        if axis in ("z", "y", "x"):
            axis = "zyx"[order["zyx".index(axis)]]
        uncertain = self.uncertainty.isChecked() and is_uncertain(bundle)
        mirrored = self.mirror.isChecked() or (uncertain and bundle.task == "restoration")
        return RunOptions(
            device=self.device.currentData(),
            precision=self.precision.currentData(),
            axis=axis,
            mirror=mirrored if bundle.tile.mirror_axes else None,
            uncertainty=uncertain,
        )

    @Slot(object)
    def _on_devices(self, devices: list[str]) -> None:
        self._worker = None
        self._devices = devices
        for name in devices:
            if name != "auto":
                self.device.addItem(_title(name), name)
        self.device.setCurrentIndex(max(self.device.findData(self._wanted), 0))
        self.device.setItemText(0, f"Automatic ({_title(self._auto())})")
        self._on_device()
        self.devices_known.emit()

    def _auto(self) -> str:
        """What "auto" stands for on this machine, as `engine.choose_device` has it."""
        cuda = [device for device in self._devices if device.startswith("cuda")]
        return (cuda or self._devices[-1:] or [""])[0]

    @Slot()
    def _on_device(self) -> None:
        self.notice.setVisible(self.effective_device == "cpu")


def is_uncertain(bundle: Bundle) -> bool:
    """Whether a bundle can say how sure it is; a restoration only by its spread over mirrored copies."""
    return bundle.task != "restoration" or bool(bundle.tile.mirror_axes)


def takes_slices(bundle: Bundle | None) -> bool:
    """Whether a bundle's network is 2D, so that a volume can be cut along any axis."""
    return bundle is not None and len(bundle.tile.size) == 2


def _devices() -> list[str]:
    try:
        return available_devices()
    except Exception:  # a torch that cannot be imported is reported by the run itself, in a sentence
        return ["auto", "cpu"]


def _title(device: str) -> str:
    if device.startswith("cuda"):
        return f"GPU {device.partition(':')[2] or '0'} (CUDA)"
    return {"cpu": "CPU", "mps": "Apple GPU (MPS)"}.get(device, device)
