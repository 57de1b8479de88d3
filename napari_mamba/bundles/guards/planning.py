"""The field "planning" of `bundle.json`: what a dose bundle takes of a plan."""

from __future__ import annotations

from typing import Any

from napari_mamba.bundles.description.fields import Fields
from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted
from napari_mamba.radiotherapy.inputs import Inputs, Organ

_MOST_GRAY, _MOST_ORGANS = 200.0, 256


def planning_of(one: Fields) -> Inputs:
    """The field, read; raises `BundleError` where a part of it is missing or of the wrong type."""
    organs = tuple(
        Organ(item.text("name"), item.texts("aliases", ()), item.text("code", ""), item.flag("required", False))
        for item in one.items("organs")
    )
    numbers = {key: float(one.number(key)) for key in ("unit", "reach")}
    return Inputs(one.text("region"), organs, at_least=one.integer("at_least"), **numbers)


def check_planning(spec: Any) -> None:
    """Raise `BundleError` where a dose bundle does not say what it takes, or another bundle does."""
    inputs = spec.planning
    if (spec.task == "dose") != (inputs is not None):
        raise BundleError(
            f"bundle {spec.name}: a bundle has the field 'planning' where its task is 'dose', and only then"
        )
    if inputs is None:
        return
    if not 0 < inputs.unit <= _MOST_GRAY:
        raise BundleError(f"bundle {spec.name}: the dose's unit is above 0 and at most {_MOST_GRAY:g} Gy")
    if inputs.reach < 0 or not 0 <= inputs.at_least <= len(inputs.organs) <= _MOST_ORGANS:
        raise BundleError(f"bundle {spec.name}: 'reach' is not negative, and 'at_least' no more than there are organs")
    names = [name for organ in inputs.organs for name in organ.names]
    if twice := next((name for name in names if not name or names.count(name) > 1), None):
        raise BundleError(f"bundle {spec.name}: two organs go by the name {quoted(twice)}")
    if tuple(channel.name for channel in spec.channels) != inputs.channels:
        raise BundleError(f"bundle {spec.name}: the channels of a dose bundle are {', '.join(inputs.channels)}")
    if [step.get("step") for step in spec.preparation] != ["planning_grid"]:
        raise BundleError(f"bundle {spec.name}: a dose bundle has the one preparation step 'planning_grid'")
    if spec.tile.mirror_axes or not spec.tile.fixed:
        raise BundleError(
            f"bundle {spec.name}: a dose bundle sees a plan at once: its tile is fixed, without mirror_axes"
        )
