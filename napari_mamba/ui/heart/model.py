"""The heart that is followed: a plain model of the cine, its labels and the beat. No Qt in here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.heart.layers import cine_of, is_cine, place_of, volume_axes
from napari_mamba.ui.run.process.outcome import sentence

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

    from napari_mamba.heart.beat import Beat
    from napari_mamba.heart.cine import Cine
    from napari_mamba.ui.run.process.outcome import Outcome

ROWS = (
    ("End-diastolic volume", "end_diastolic_volume_ml", "ml"),
    ("End-systolic volume", "end_systolic_volume_ml", "ml"),
    ("Stroke volume", "stroke_volume_ml", "ml"),
    ("Ejection fraction", "ejection_fraction_percent", "%"),
    ("Mass of the wall", "wall_mass_g", "g"),
)


@dataclass
class HeartModel:
    """A cine among a viewer's layers, the labels that follow it, and what they say about the beat.

    Attributes
    ----------
    layer : Image or None
        The cine.
    labels : Labels or None
        What is measured.
    cavity, wall : int
        Values of the labels.
    beat : Beat or None
    """

    viewer: ViewerModel
    layer: Layer | None = None
    labels: Labels | None = None
    cavity: int = 1
    wall: int = 2
    beat: Beat | None = None
    message: str = ""
    kind: str = "hint"
    changed: ClassVar[Signal] = Signal()
    """Something is chosen, measured, said, or gone."""
    moved: ClassVar[Signal] = Signal()
    """Another phase is shown."""

    def __post_init__(self) -> None:
        events = self.viewer.layers.events
        self._listened = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._listened:
            event.connect(self._on_layers)
        self.viewer.dims.events.current_step.connect(self._on_step)
        self.refresh()

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._listened:
            event.disconnect(self._on_layers)
        self.viewer.dims.events.current_step.disconnect(self._on_step)

    def _on_layers(self, event: Any = None) -> None:
        self.refresh()

    def _on_step(self, event: Any = None) -> None:
        self.moved.emit()

    # ---- choosing

    @property
    def cines(self) -> list[Layer]:
        """What can be chosen, the uppermost first."""
        return [layer for layer in reversed(self.viewer.layers) if is_cine(layer)]

    def refresh(self) -> None:
        """Keep the chosen cine while it is there; take the uppermost where none is."""
        cines = self.cines
        if self.layer not in cines:
            self.choose(cines[0] if cines else None)
            return
        if self.labels is not None and self.labels not in self.viewer.layers:
            self.labels, self.beat = None, None
        self.changed.emit()

    def choose(self, layer: Layer | None) -> None:
        """Another cine; labels of its shape that are there already are measured."""
        self.layer, self.beat, self.message = layer, None, ""
        found = [one for one in self.viewer.layers if _fits(one, layer)]
        self.labels = found[-1] if found else None  # type: ignore[assignment]
        if self.labels is not None:
            self.measure()
        self.changed.emit()

    @property
    def problem(self) -> str:
        """Why nothing can be followed now, in a sentence; empty if it can."""
        if self.layer is None:
            return "Open a short-axis cine: a folder of DICOM files, or an image with phases."
        return ""

    def cine(self) -> Cine:
        """The chosen cine, read and checked; raises `InputError` with a sentence."""
        from napari_mamba.errors import InputError
        from napari_mamba.heart.cine import check_cine

        if self.layer is None:
            raise InputError(self.problem)
        cine = cine_of(self.layer)
        check_cine(cine)
        return cine

    # ---- what came of it

    def end(self, outcome: Outcome) -> Any:
        """Take in how a run ended; returns a `Followed` whose labels are to be shown, or None."""
        if outcome.error:
            self.say(outcome.error, "error")
        elif outcome.cancelled:
            self.say("Cancelled. Nothing was added.")
        else:
            found: Any = outcome.result
            self.say("\n".join(found.warnings) or "Done.", "warning" if found.warnings else "good")
            return found
        return None

    def take(self, labels: Labels) -> None:
        """Measure these labels from now on."""
        self.labels = labels
        self.measure(quietly=True)

    def measure(self, quietly: bool = False) -> None:
        """Measure the labels as they are now, after they were painted on perhaps."""
        from napari_mamba.heart.beat import measure_beat

        if self.layer is None or self.labels is None:
            return
        try:
            cine = cine_of(self.layer)
            labels = volume_axes(np.asarray(self.labels.data), place_of(self.layer))
            times = None if cine.times is None else list(cine.times)
            self.beat = measure_beat(labels, list(cine.spacing), times, cavity=self.cavity, wall=self.wall)
            if not quietly:
                self.message, self.kind = "\n".join(self.beat.doubts), "warning"
        except NapariMambaError as error:
            self.beat = None
            self.message, self.kind = sentence(str(error)), "error"
        self.changed.emit()

    def say(self, message: str, kind: str = "hint") -> None:
        """A sentence for the user."""
        self.message, self.kind = message, kind
        self.changed.emit()

    # ---- the phase that is shown

    @property
    def phase(self) -> int:
        """The phase that the viewer shows."""
        count = self.layer.data.shape[0] if self.layer is not None else 1
        return int(np.clip(self.viewer.dims.current_step[0], 0, count - 1)) if self.viewer.dims.ndim == 4 else 0

    def show_phase(self, phase: int) -> None:
        """Have the viewer show a phase."""
        if self.viewer.dims.ndim == 4:
            self.viewer.dims.set_current_step(0, phase)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values of the beat, and of the phase that is shown, for a table."""
        if self.beat is None:
            return []
        summary = self.beat.summary()
        rows = [(name, _told(summary[key], unit)) for name, key, unit in ROWS]
        at = self.beat.times[self.phase]
        when = f"{at:.0f} ms" if self.beat.time_unit == "ms" else f"phase {self.phase}"
        return [*rows, (f"Cavity at {when}", _told(float(self.beat.cavity_ml[self.phase]), "ml"))]

    # ---- saving

    def save(self, path: Path) -> None:
        """Write the curve as a table (.csv) or as a picture (.png, .pdf, .svg), and say so."""
        from napari_mamba.errors import OutputError
        from napari_mamba.heart.report import draw, to_csv
        from napari_mamba.io.common.atomic import atomic_path

        if self.beat is None or self.layer is None:
            return
        try:
            if path.suffix.lower() not in (".csv", ".png", ".pdf", ".svg"):
                raise OutputError(f"{path.name} has none of the endings .csv, .png, .pdf, .svg: choose one of them")
            with atomic_path(path) as temporary:
                if path.suffix.lower() == ".csv":
                    temporary.write_text(to_csv(self.beat), encoding="utf-8")
                else:
                    draw(self.beat, temporary, self.layer.name)
            self.say(f"Saved {path}.", "good")
        except (NapariMambaError, OSError) as error:
            self.say(sentence(str(error)), "error")


def _fits(layer: Layer, cine: Layer | None) -> bool:
    return cine is not None and type(layer).__name__ == "Labels" and layer.data.shape == cine.data.shape


def _told(value: Any, unit: str) -> str:
    return "not found" if value is None else f"{value:.1f} {unit}"
