"""What the network says of one labelled image while it still learns: a label map beside the checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mamba import bundles, io
from napari_mamba.bundles import BundleSpec
from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.data.store import Painted, read_image
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

FILE = "preview.nii.gz"
_BUNDLE = "preview-bundle"
_MARGIN_MM = 12.0


def find_case(cases: Sequence[Case], name: str) -> Case:
    """The case of that name; raises `InputError` where there is none."""
    for case in cases:
        if case.name == name:
            return case
    shown = ", ".join(case.name for case in cases[:5])
    raise InputError(f"there is no image {quoted(name)} to preview: those with labels are {shown}")


def write_preview(
    spec: BundleSpec,
    weights: Mapping[str, Tensor],
    case: Case,
    painted: Painted,
    folder: Path,
    device: str,
    cancel: threading.Event,
) -> Path | None:
    """Run the weights about what is drawn in an image.

    Parameters
    ----------
    spec : BundleSpec
        Of the bundle that would be made of the weights now.
    weights : mapping of str to Tensor
    case : Case
    painted : Painted
    folder : Path
        The label map is written into it, on the image's own grid; background where the network did not look.
    device : str
    cancel : threading.Event

    Returns
    -------
    Path or None
        None if it was stopped.
    """
    from napari_mamba.engine import RunOptions, run_to_end

    bundle = bundles.load(bundles.save(folder / _BUNDLE, spec, [dict(weights)], "A preview.", overwrite=True))
    image = read_image(case)
    options = RunOptions(device=device, region=about_drawn(case, painted))
    result = run_to_end(image, bundle, options, cancel=cancel)
    if result.cancelled or result.labels is None:
        return None
    return io.write(result.labels, folder / FILE, classes=bundle.classes)


def about_drawn(case: Case, painted: Painted) -> tuple[float, ...] | None:
    """A box in RAS mm, lowest x, y, z, then highest, about the painted structures, or about all paint."""
    assert case.label is not None
    labels: Volume = io.read_labels(case.label).volume
    values = np.asarray(labels.data[0])
    known = np.ones(values.shape, bool) if painted.unknown is None else values != painted.unknown
    drawn = known & (values != 0) & (values != (0 if painted.background is None else painted.background))
    places = np.argwhere(drawn if drawn.any() else known)
    if not len(places):
        return None
    low, high = places.min(0) - 0.5, places.max(0) + 0.5
    corners = np.array([(*corner, 1.0) for corner in product(*zip(low, high, strict=True))])
    world = (corners @ labels.affine.T)[:, :3]
    return (*(world.min(0) - _MARGIN_MM).tolist(), *(world.max(0) + _MARGIN_MM).tolist())
