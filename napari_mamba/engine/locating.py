"""A run whose field of view another bundle finds: each place is cut out, answered by itself, and put back.

The other bundle runs without mirrored copies and with little overlap: it has to find the place, not its outline.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.preparation.axes import orient
from napari_mamba.engine.preparation.state import State
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.result import Result, class_table, voxel_ml
from napari_mamba.errors import BundleError, InputError
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.bundles.guards.locator import Locator

_OVERLAP = 0.125
Box = tuple[float, ...]


def is_located(volume: Volume, bundle: Any) -> bool:
    """Whether an image is larger than a bundle's own field of view, and another bundle is to find that in it."""
    locator: Locator | None = getattr(bundle, "locator", None)
    if locator is None or volume.units == "pixel":
        return False
    empty = np.broadcast_to(np.uint8(0), (1, *volume.shape))
    turned = orient(State(empty, np.array(volume.affine[:3, :3])), "RAS")[0]
    sides = np.array(turned.data.shape[1:]) * np.array(turned.spacing)
    return bool((sides[::-1] > np.array(locator.larger_than_mm)).any())


def installed_locator(bundle: Any) -> Bundle:
    """The bundle that finds another's field of view, by its name alone; raises `BundleError` if it is missing."""
    from napari_mamba import bundles

    wanted = bundle.locator.bundle
    for known in bundles.available():
        if known.name == wanted:
            return known
    raise BundleError(
        f"{bundle.name} has {wanted} find its place in an image of this size, and that is not installed: install it, "
        "or crop the image around the structure"
    )


def events_located(
    volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event | None
) -> Generator[Progress, None, Result]:
    """The run of `napari_mamba.engine.run` in each place that the bundle's locator finds, as one result.

    Raises
    ------
    BundleError
        If the locator is not installed.
    InputError
        If it finds none of the places.
    """
    from napari_mamba.engine.region import events_within
    from napari_mamba.engine.session import Session

    assert bundle.locator is not None
    finder = installed_locator(bundle)
    quick = RunOptions(
        device=options.device,
        precision=options.precision,
        mirror=False,
        overlap=_OVERLAP,
        replace_nonfinite=options.replace_nonfinite,
    )
    seen = yield from _told(Session(volume, finder, quick, cancel).events(), finder.name)
    if seen.cancelled:
        return seen
    boxes = places(seen, bundle.locator)
    if not boxes:
        raise InputError(
            f"{finder.name} found no place for {bundle.name} in this image: check that it shows the whole structure, "
            "and that its orientation and voxel size are right"
        )
    found: dict[str, Result] = {}
    for name, box in boxes.items():
        found[name] = yield from events_within(volume, bundle, replace(options, region=box), cancel)
        if found[name].cancelled:
            return found[name]
    return joined(volume, bundle, options, found, seen, boxes)


def _told(events: Generator[Progress, None, Result], name: str) -> Generator[Progress, None, Result]:
    """Hand on how far the locator is; what it doubts about its own answer is not about the result."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if event.stage == "network":
            yield replace(event, message="" if event.warning else event.message, warning=False)
        elif event.stage == "warming up":
            yield replace(event, message=f"finding the place by {name}", warning=False)


def places(seen: Result, locator: Locator) -> dict[str, Box]:
    """Boxes in RAS mm, lowest x, y, z, then highest, around the largest piece of each part that was found."""
    from scipy import ndimage

    assert seen.labels is not None
    labels, affine = np.asarray(seen.labels.data)[0], seen.labels.affine
    least = locator.min_ml / voxel_ml(seen.labels)
    boxes: dict[str, Box] = {}
    for name, wanted in locator.parts.items():
        pieces, count = ndimage.label(np.isin(labels, wanted), np.ones((3, 3, 3)))
        if not count:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() < least:
            continue
        points = np.argwhere(pieces == 1 + int(sizes.argmax())) @ affine[:3, :3].T + affine[:3, 3]
        low, high = points.min(0) - locator.margin_mm, points.max(0) + locator.margin_mm
        boxes[name] = (*low.tolist(), *high.tolist())
    return boxes


def joined(
    volume: Volume, bundle: Bundle, options: RunOptions, found: dict[str, Result], seen: Result, boxes: dict[str, Box]
) -> Result:
    """One result of those of the places: each voxel is that of the place that says more than background."""
    first, *others = found.values()
    whole = Result(labels=first.labels, extra=dict(first.extra), provenance=dict(first.provenance))
    assert whole.labels is not None
    labels = np.asarray(whole.labels.data).copy()
    for one in others:
        assert one.labels is not None
        theirs = np.asarray(one.labels.data)
        new = (labels == 0) & (theirs != 0)
        labels[new] = theirs[new]
        for name, values in one.extra.items():
            whole.extra[name] = _joined_values(name, whole.extra[name], values, bundle)
    whole.labels = whole.labels.with_data(labels, whole.labels.channel_names)
    whole.table = class_table(labels[0], np.asarray(volume.data), bundle.classes, voxel_ml(volume))
    missing = [name for name in (bundle.locator.parts if bundle.locator else ()) if name not in found]
    whole.warnings = [f"No place was found on the {name}: it has no answer." for name in missing]
    for name, one in found.items():
        whole.warnings += [f"{name.capitalize()}: {text}" for text in one.warnings]
    whole.provenance |= {
        "options": options.to_dict(),
        "warnings": list(whole.warnings),
        "located": {
            "bundle": seen.provenance.get("bundle"),
            "boxes": {name: list(box) for name, box in boxes.items()},
            "ml": {name: {row.name: row.ml for row in one.table} for name, one in found.items()},
            "familiarity": {name: one.provenance.get("familiarity") for name, one in found.items()},
            "seconds": seen.provenance.get("seconds"),
        },
    }
    whole.provenance.pop("region", None)
    return whole


def _joined_values(name: str, one: Volume, other: Volume, bundle: Bundle) -> Volume:
    """Of probabilities those of the place that is less sure of background; of what else there is the larger."""
    a, b = np.asarray(one.data), np.asarray(other.data)
    if name == "probabilities" and bundle.activation != "sigmoid":
        return one.with_data(np.where(b[:1] < a[:1], b, a), one.channel_names)
    return one.with_data(np.maximum(a, b), one.channel_names)
