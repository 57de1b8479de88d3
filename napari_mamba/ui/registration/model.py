"""What is registered onto what, and what came of it: a plain model in step with a viewer's layers. No Qt in here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import Signal

from napari_mamba.errors import InputError, NapariMambaError, OutputError
from napari_mamba.ui.layers import KEY, Placement, layers_to_volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.engine.registering.options import Registered, RegistrationOptions
    from napari_mamba.ui.run.process.outcome import Outcome
    from napari_mamba.volume import Volume

AFFINES = {
    "auto": "Affine, best start",
    "headers": "Affine from the files' places",
    "masses": "Affine from the centres of mass",
    "rigid": "Rigid: turn and shift only",
    "none": "None: the files' places are right",
}
"""Choices of the affine, as a user reads them."""
MADE = "registration"
"""Role of the layers that a registration adds, which are never suggested as its input."""


@dataclass(frozen=True, eq=False)
class Pair:
    """What a registration was asked for: volumes and places at the click, so that layers may be moved meanwhile."""

    fixed: Volume
    moving: Volume
    place: Placement
    moving_name: str
    labels: tuple[tuple[str, Volume, Any], ...] = ()
    """Of each labels layer to carry along: name, volume, and its colours and names as keyword arguments."""


@dataclass(frozen=True, eq=False)
class Finished:
    """A registration that went to its end."""

    pair: Pair
    found: Registered
    carried: tuple[np.ndarray, ...] = ()
    """Labels on the fixed grid, (Z, Y, X), one for each of `pair.labels`."""
    cancelled: ClassVar[bool] = False


@dataclass
class RegistrationModel:
    """The choice of two layers, and the last result.

    Attributes
    ----------
    fixed, moving : layer or None
    affine : str
        A key of `AFFINES`.
    refine : bool or None
        None: only where no network warps.
    bundle : str
        Path of a bundle for registration, "auto" for one that knows such images, or "none".
    keep_warp : bool
        The network's warp is kept even where the images fit less well with it.
    labels : list of layers
        Carried along; on the moving image's grid.
    finished : Finished or None
    message, kind : str
        What is said below the button, and how it is meant: "error", "warning", "good" or "hint".
    """

    viewer: ViewerModel
    fixed: Layer | None = None
    moving: Layer | None = None
    affine: str = "auto"
    refine: bool | None = None
    bundle: str = "auto"
    keep_warp: bool = False
    labels: list[Layer] = field(default_factory=list)
    finished: Finished | None = None
    message: str = ""
    kind: str = "hint"
    changed: ClassVar[Signal] = Signal()
    """Something is chosen, came or went."""

    def __post_init__(self) -> None:
        events = self.viewer.layers.events
        self._listened = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._listened:
            event.connect(self._on_layers)
        self.refresh()

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._listened:
            event.disconnect(self._on_layers)

    def _on_layers(self, event: Any = None) -> None:
        self.refresh()

    # ---- choosing

    @property
    def images(self) -> list[Layer]:
        """What can be chosen, the uppermost first."""
        return [layer for layer in reversed(self.viewer.layers) if _is_volume(layer, "Image")]

    @property
    def label_layers(self) -> list[Layer]:
        """Labels that can be carried along: those with as many voxels as the moving image."""
        if self.moving is None:
            return []
        shape = self.moving.data.shape
        return [one for one in self.viewer.layers if _is_volume(one, "Labels") and one.data.shape == shape]

    def refresh(self) -> None:
        """Keep what is chosen; suggest the two lowest images where nothing is."""
        images = self.images
        self.fixed = self.fixed if self.fixed in images else None
        self.moving = self.moving if self.moving in images else None
        free = [layer for layer in reversed(images) if layer not in (self.fixed, self.moving)]
        if self.fixed is None and free:
            self.fixed = free.pop(0)
        if self.moving is None and free:
            self.moving = free.pop(0)
        self.labels = [layer for layer in self.labels if layer in self.label_layers]
        self.changed.emit()

    def choose(self, **chosen: Any) -> None:
        """Set any of `fixed`, `moving`, `affine`, `refine`, `bundle`, `keep_warp` and `labels`."""
        for name, value in chosen.items():
            setattr(self, name, value)
        self.labels = [layer for layer in self.labels if layer in self.label_layers]
        self.changed.emit()

    def swap(self) -> None:
        """The fixed image becomes the moving one."""
        self.choose(fixed=self.moving, moving=self.fixed, labels=[])

    @property
    def problem(self) -> str:
        """Why nothing can be registered now, in a sentence; empty if it can."""
        if self.fixed is None or self.moving is None:
            return "Open two 3D images: one stays, the other is moved onto it."
        if self.fixed is self.moving:
            return "Choose two different images: an image lies on itself already."
        return ""

    @property
    def keeps(self) -> bool:
        """Whether the warp of a network is kept in any case; without one there is none."""
        return self.keep_warp and self.bundle != "none"

    # ---- running

    def pair(self) -> Pair:
        """What is chosen, read now; raises `InputError` with a sentence."""
        if self.problem or self.fixed is None or self.moving is None:
            raise InputError(self.problem)
        fixed, place = layers_to_volume([self.fixed])
        moving, _ = layers_to_volume([self.moving])
        labels = []
        for layer in self.labels:
            volume, _ = layers_to_volume([layer])
            if not np.allclose(volume.affine, moving.affine, atol=1e-3):
                raise InputError(
                    f"the labels '{layer.name}' lie on another grid than the moving image: leave them away"
                )
            labels.append((layer.name, volume, {"colormap": layer.colormap, "features": layer.features}))
        return Pair(fixed, moving, place, self.moving.name, tuple(labels))

    def options(self, device: str = "auto", precision: str = "auto") -> RegistrationOptions:
        """As the engine takes them."""
        from napari_mamba.engine.registering.options import RegistrationOptions

        return RegistrationOptions(self.affine, self.refine, device, precision, self.keeps)

    def end(self, outcome: Outcome) -> Finished | None:
        """Take in how it ended; returns what is to be shown."""
        if outcome.error:
            self.say(outcome.error, "error")
        elif outcome.cancelled:
            self.say("Cancelled. Nothing was added.")
        else:
            self.finished = outcome.result  # type: ignore[assignment]  # of `register_pair`
            assert self.finished is not None
            found = self.finished.found
            self.say(summary(found), "warning" if found.warnings else "good")
            return self.finished
        return None

    def say(self, message: str, kind: str = "hint") -> None:
        """A sentence for the user."""
        self.message, self.kind = message, kind
        self.changed.emit()

    # ---- saving

    def save_transform(self, path: Path) -> None:
        """Write the transform, `.h5` or `.tfm`, or the displacement as NIfTI, by the path's ending; says so."""
        from napari_mamba.io.common.atomic import atomic_path
        from napari_mamba.registration import transforms

        if self.finished is None:
            return
        found, fixed = self.finished.found, self.finished.pair.fixed
        try:
            if not path.name.lower().endswith((".h5", ".tfm", ".nii", ".nii.gz")):
                raise OutputError(f"{path.name} has none of the endings .h5, .tfm, .nii.gz: choose one of them")
            with atomic_path(path) as temporary:
                if path.name.lower().endswith((".nii", ".nii.gz")):
                    transforms.write_displacement(found.transform, temporary, fixed.affine, fixed.shape)
                else:
                    transforms.write(found.transform, temporary)
            self.say(f"Saved {path}. It takes points of the fixed image to the moving one, as ITK has it.", "good")
        except (NapariMambaError, OSError) as error:
            self.say(f"{str(error)[:1].upper()}{str(error)[1:]}.", "error")


def register_pair(
    pair: Pair, bundle: str, options: Any, work: Callable[..., Generator[Any, None, Outcome]], cancel: threading.Event
) -> Generator[Any, None, Outcome]:
    """Register in the engine's process, then carry the labels; driven in a worker thread.

    Parameters
    ----------
    work : callable
        `EngineProcess.work`, or `EngineThread.work`.
    """
    from napari_mamba.ui.run.process.outcome import Outcome

    plain = [volume.with_data(np.ascontiguousarray(volume.data)) for volume in (pair.fixed, pair.moving)]
    outcome = yield from work("register", (*plain, bundle, options), cancel)
    if outcome.error or outcome.cancelled:
        return outcome
    found: Any = outcome.result
    carried = [np.asarray(found.carry(volume, pair.fixed).data)[0] for _, volume, _ in pair.labels]
    ended: Any = Finished(pair, found, tuple(carried))
    return Outcome(ended)


def summary(found: Registered) -> str:
    """What a registration found, and what is to be doubted, in sentences."""
    facts = found.facts
    lines = [
        f"Done. The longest way is {facts['longest_mm']:.1f} mm; {facts['folded_percent']:.2f}% of the voxels fold."
    ]
    if (network := facts.get("network")) and network["kept"]:
        lines.append(f"Warped by {network['bundle']}.")
    refined = facts.get("refinement")
    if refined and not refined["kept"]:
        lines.append("A warp fitted to the pair brought nothing and was left away.")
    return "\n".join([*lines, *found.warnings])


def _is_volume(layer: Layer, kind: str) -> bool:
    known = layer.metadata.get(KEY, {})
    made = known.get("role") in (MADE, "map")
    return type(layer).__name__ == kind and layer.ndim == 3 and not getattr(layer, "rgb", False) and not made


def bundles_for(bundles: Sequence[Any]) -> list[Any]:
    """Those whose task is registration."""
    return [bundle for bundle in bundles if bundle.task == "registration"]
