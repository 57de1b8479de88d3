"""From a volume to what a network takes, and from what it gives back to the volume's own grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.engine.preparation.grids.upsampling import UndoUpsample
from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.engine.preparation.steps import STEPS
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

_BACKGROUND_LOGIT = -30.0
"""A logit whose probability is zero in float32, for voxels that a network never saw."""


@dataclass(frozen=True)
class Prepared:
    """A prepared image, and the way back from it.

    Attributes
    ----------
    data : ndarray, shape (C, Z, Y, X), float32
        C-contiguous.
    undos : tuple of Undo
        One a step, in the order of the steps.
    spacing : tuple of float
        Voxel sides of `data` along (z, y, x), in mm.
    warnings : tuple of str
        Sentences for the user about what the steps have seen.
    directions : ndarray, shape (3, 3), optional
        From a step of one voxel of `data` along (z, y, x) to RAS mm.
    """

    data: np.ndarray
    undos: tuple[Undo, ...]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    warnings: tuple[str, ...] = ()
    directions: np.ndarray | None = None

    @property
    def resampled(self) -> bool:
        """Whether the way back interpolates. Where it does not, labels may be chosen before it (`restore_map`)."""
        return not all(undo.exact for undo in self.undos)

    @property
    def _interpolating(self) -> tuple[tuple[Undo, ...], tuple[Undo, ...]]:
        """The way back, cut after its last interpolation: values have to be kept apart only up to there."""
        back = tuple(reversed(self.undos))
        cut = max((i + 1 for i, undo in enumerate(back) if not undo.exact), default=0)
        return back[:cut], back[cut:]

    def restore_probabilities(self, values: np.ndarray, activation: str = "none") -> np.ndarray:
        """Every class on the input's grid.

        Parameters
        ----------
        values : ndarray, shape (K, Z, Y, X), floating point
            Network outputs on the grid of `data`.
        activation : {"none", "softmax", "sigmoid"}
            Applied after interpolating, as nnU-Net does; then `values` are logits. "none": they are probabilities.

        Returns
        -------
        ndarray, shape (K, *input grid), float32
            Outside of what the network saw: surely background (channel 0), or with "sigmoid" no class at all.
        """
        from scipy.special import expit, softmax

        first, rest = self._interpolating
        logit = _fill(len(values), activation, outside=0.0 if activation == "none" else _BACKGROUND_LOGIT)
        whole: Any = None
        for k in range(len(values)):
            one = _invert_steps(np.asarray(values[k : k + 1], np.float32), first, logit[k])
            whole = np.empty((len(values), *one.shape[1:]), np.float32) if whole is None else whole
            whole[k] = one[0]
        if activation == "sigmoid":
            expit(whole, out=whole)
        elif activation == "softmax":
            for z in range(whole.shape[1]):
                whole[:, z] = softmax(whole[:, z], axis=0)
        return np.ascontiguousarray(_invert_steps(whole, rest, _fill(len(values), activation, outside=0.0, inside=1.0)))

    def restore_labels(
        self, values: np.ndarray, indices: Sequence[int] | None = None, activation: str = "softmax"
    ) -> np.ndarray:
        """A label map on the input's grid, class by class, so that no more than two classes are held on it at a time.

        Parameters
        ----------
        values : ndarray, shape (K, Z, Y, X), floating point
            Logits on the grid of `data`; with "none" or "softmax", probabilities do as well.
        indices : sequence of int, optional
            The label each channel stands for; its own number, or with "sigmoid" its number plus one, if not given.
        activation : {"softmax", "none", "sigmoid"}
            "sigmoid": channels above one half (logits above 0) are painted in order. Otherwise the highest wins, the
            first of equal ones.

        Returns
        -------
        ndarray, shape (Z, Y, X), uint8, or uint16 where a label exceeds 255
        """
        first, rest = self._interpolating
        painted = activation == "sigmoid"
        indices = list(indices) if indices is not None else [k + painted for k in range(len(values))]
        if len(indices) != len(values):
            raise BundleError(f"the network gave {len(values)} channels for {len(indices)} classes")
        fill = _fill(len(values), activation, outside=0.0 if activation == "none" else _BACKGROUND_LOGIT)
        labels: Any = None
        best: Any = None
        for k, label in enumerate(indices):
            one = _invert_steps(np.asarray(values[k : k + 1], np.float32), first, fill[k])[0]
            if labels is None:
                labels = np.full(one.shape, 0 if painted else label, np.uint8 if max(indices) < 256 else np.uint16)
                best = np.zeros(()) if painted else one.copy()
            better = one > best
            labels[better] = label
            if not painted:
                np.copyto(best, one, where=better)
        return np.ascontiguousarray(_invert_steps(labels[None], rest, 0)[0])

    def restore_values(self, values: np.ndarray) -> np.ndarray:
        """Any values (K, Z, Y, X) on the grid of `data` back on the input's, interpolated; 0 outside."""
        return np.ascontiguousarray(_invert_steps(np.asarray(values, np.float32), tuple(reversed(self.undos)), 0.0))

    def restore_field(self, values: np.ndarray) -> np.ndarray:
        """A field of vectors (3, Z, Y, X) on the grid of `data` back on the input's, as `restore_values` does it.

        Outside of a window it goes on as it is at the window's border: zeros would tear it there.
        """
        field = np.asarray(values, np.float32)
        for undo in reversed(self.undos):
            field = undo.extended(field)
        return np.ascontiguousarray(field)

    def restore_map(self, labels: np.ndarray) -> np.ndarray:
        """A label map (Z, Y, X) on the grid of `data` back on the input's, by nearest neighbour; 0 outside."""
        values = labels[None]
        for undo in reversed(self.undos):
            values = undo.nearest(values)
        return np.ascontiguousarray(values[0])

    def restore_image(self, image: np.ndarray) -> np.ndarray:
        """An image (C, Z, Y, X) on the grid of `data` back on the input's, in the input's intensity scale, float32.

        After a step `refine` it has the input's axes, and the finer grid (see `restored_affine`).

        Voxels cropped away were zero and are zero again.
        """
        for undo in reversed(self.undos):
            image = undo.image(image)
        return np.ascontiguousarray(image, np.float32)

    def data_consistency(self, image: np.ndarray) -> np.ndarray:
        """What `restore_image` gave, true to the input's slices where the step `refine` asks for that."""
        first = self.undos[0] if self.undos else None
        return first.data_consistency(image) if isinstance(first, UndoUpsample) else image

    @property
    def upsampled(self) -> bool:
        """Whether restored images lie on another grid than the input: only a first step, `refine`, does that."""
        return bool(self.undos) and isinstance(self.undos[0], UndoUpsample)

    def restored_affine(self, affine: np.ndarray) -> np.ndarray:
        """The affine (4, 4) of restored images, from the input's."""
        return self.undos[0].grid(affine) if self.undos else affine


def prepare(volume: Volume, steps: Sequence[Mapping[str, Any]]) -> Prepared:
    """Carry out a bundle's preparation.

    Parameters
    ----------
    volume : Volume
        Finite values; C as the steps expect.
    steps : sequence of mapping
        Each with its name under "step" and its options; see `docs/bundles.md`.

    Returns
    -------
    Prepared

    Raises
    ------
    BundleError
        If a step is unknown or its options are wrong.
    InputError
        If the image does not suit a step.

    Examples
    --------
    >>> volume = Volume(np.arange(24.0).reshape(1, 2, 3, 4), affine=np.diag([2.0, 1, 1, 1]))
    >>> prepared = prepare(volume, [{"step": "resample", "spacing": [1, 1, 1], "order": 1}])
    >>> prepared.data.shape, prepared.restore_image(prepared.data).shape
    ((1, 4, 3, 4), (1, 2, 3, 4))
    """
    state = State(np.asarray(volume.data).astype(np.float32), np.array(volume.affine[:3, :3]))
    undos: list[Undo] = []
    warnings: list[str] = []
    for step in steps:
        options = dict(step)
        name = options.pop("step", None)
        if name not in STEPS:
            raise BundleError(f"the preparation step {name!r} is not known; known are {', '.join(STEPS)}")
        if name == "refine" and undos:
            raise BundleError("the preparation step 'refine' comes first: what it makes stays on its grid")
        try:
            state, undo = STEPS[name](state, **options)
        except TypeError as error:
            raise BundleError(f"the preparation step {name!r} has wrong options ({error})") from error
        undos.append(undo)
        warnings += [warning for warning in state.warnings if warning not in warnings]
    return Prepared(np.ascontiguousarray(state.data), tuple(undos), state.spacing, tuple(warnings), state.affine)


def _invert_steps(values: np.ndarray, undos: Sequence[Undo], fill: Fill) -> np.ndarray:
    for undo in undos:
        values = undo.values(values, fill)
    return values


def _fill(classes: int, activation: str, outside: float, inside: float = 0.0) -> list[float]:
    """What a voxel that was cropped away is, one value a class: background, or no class with "sigmoid"."""
    fill = [outside] * classes
    if activation != "sigmoid":
        fill[0] = inside if activation != "none" else 1.0
    return fill
