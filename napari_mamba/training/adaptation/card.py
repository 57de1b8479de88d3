"""The card and the description of an adapted bundle."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from napari_mamba.bundles import Bundle, BundleSpec, Network
from napari_mamba.training.adaptation.targets.classes import Classes

NOT_CLINICAL = "Not for clinical use."


def adapted_spec(
    bundle: Bundle, name: str, network: Network, classes: Classes, size: tuple[int, ...], facts: Mapping[str, Any]
) -> BundleSpec:
    """What `bundle.json` says: the bundle's own, with other classes, the patch of training, and what was measured."""
    indices = {entry.index for entry in classes.entries}
    sides = bundle.tile.left_right_pairs
    pairs = [pair for pair in zip(sides[::2], sides[1::2], strict=True) if set(pair) <= indices]
    across = len(bundle.tile.size) - 1  # the axis from left to right
    mirrored = bundle.tile.mirror_axes
    if classes.sided(sides) and not pairs:  # nobody says which class is which one's other side
        mirrored = tuple(axis for axis in mirrored if axis != across)
    same = tuple(entry.index for entry in classes.entries) == tuple(entry.index for entry in bundle.classes)
    tile = replace(
        bundle.tile,
        size=tuple(size[-len(bundle.tile.size) :]),
        left_right_pairs=tuple(side for pair in pairs for side in pair),
        mirror_axes=mirrored,
        round_robin=False,
    )
    return replace(
        bundle.spec,
        name=name,
        version="1.0.0",
        title=f"{bundle.title}, adapted"[:200],
        network=network,
        tile=tile,
        classes=classes.entries,
        preparation=tuple(_of_view(step, facts.get("view_mm")) for step in bundle.preparation),
        locator=bundle.locator if _locator_fits(bundle, classes, facts) else None,
        postprocessing=bundle.postprocessing if same else (),
        description=f"Adapted from {bundle.name} {bundle.version} to labels of somebody's own.",
        data_source=f"Adapted on {facts['training_people']} people of a user's own data. Before: {bundle.data_source}",
        intended_use=f"Research on images like those that it was adapted to. {NOT_CLINICAL}",
        metrics={"adapted": dict(facts)},
        changelog={},
    )


def _of_view(step: Mapping[str, Any], view: Sequence[float] | None) -> Mapping[str, Any]:
    """The step that doubts the size of a scan, for those that it was adapted to as well, and a fifth more."""
    if step.get("step") != "field_of_view" or view is None:
        return step
    least, most = step["mm"]
    return {**step, "mm": [min(least, math.floor(0.8 * view[0])), max(most, math.ceil(1.2 * view[1]))]}


def _locator_fits(bundle: Bundle, classes: Classes, facts: Mapping[str, Any]) -> bool:
    """Whether the place that another bundle finds is still the one that is learnt: not for somebody's own structures,
    nor where it learnt from whole images in which that place would have been looked for."""
    return any(classes.kept[1:]) and not facts.get("located", False)


def card(spec: BundleSpec, bundle: Bundle, classes: Classes, facts: Mapping[str, Any]) -> str:
    """Markdown for README.md."""
    lines = [
        f"# {spec.title}", "", f"**{NOT_CLINICAL}** For research on images like those that it was adapted to.", "",
        f"Adapted with napari-mamba from `{bundle.name}` {bundle.version} (SHA-256 {bundle.sha256[:16]}…): "
        f"{facts['steps']} steps in {facts['minutes']:.1f} minutes on {facts['device']}, patches of "
        f"{' x '.join(map(str, spec.tile.size))} voxels; the weights of step {facts['best_step']} are kept.",
        "", "## Data", "",
        f"Learnt from {facts['training_images']} images of {facts['training_people']} people"
        + (", painted in part: unpainted voxels were unknown, not background." if facts["partial"] else "."),
    ]  # fmt: skip
    if facts["unlabelled_images"]:
        lines.append(f"Also learnt from {facts['unlabelled_images']} images without labels ({facts['scheme']}).")
    elif facts["scheme"] != "supervised":
        lines.append(f"Unpainted voxels were learnt from by the scheme {facts['scheme']}.")
    if len(bundle.weights) > 1:
        lines.append(f"Of the {len(bundle.weights)} networks of {bundle.name}, the first was adapted.")
    lines += ["", "## Score", "", *_score(classes, facts), "", "## Classes", ""]
    for entry, kept, drawn in zip(classes.entries, classes.kept, classes.drawn, strict=True):
        origin = "new" if kept is None else f"goes on from {bundle.name}"
        lines.append(f"- {entry.index} {entry.name}: {origin}{'' if drawn else ', not drawn here, not measured'}")
    lines += ["", f"Licence of what it was adapted from: {bundle.licence or 'not stated'}.", ""]
    return "\n".join(lines)


def _score(classes: Classes, facts: Mapping[str, Any]) -> list[str]:
    measured = facts.get("score")
    if not measured:
        held_out = facts["held_out_people"]
        return ["Not measured: " + ("it was stopped before." if held_out else "no person was held out.")]
    people = measured["people"]
    spread = f" ± {measured['sd']:.3f} (standard deviation over people)" if people > 1 else ""
    images = f"{measured['images']} image{'s' if measured['images'] > 1 else ''}"
    lines = [
        f"Dice on {people} held-out {'people' if people > 1 else 'person'} ({images}), on the "
        f"network's grid: **{measured['mean']:.3f}**{spread}. The weights were chosen by this score, so that it is "
        "somewhat too good; new people give an honest one.",
    ]
    if measured.get("part"):
        lines.append(
            "It was stopped before the whole images were looked at: far from what is drawn, some tiles are missing."
        )
    if people < 5:
        lines.append("So few people say little about others.")
    if "before" in facts:
        lines.append(f"Before adapting it was {facts['before']:.3f}.")
    names = {entry.index: entry.name for entry in classes.entries}
    lines += ["", "| class | Dice |", "| --- | --- |"]
    lines += [f"| {names[int(index)]} | {_number(value)} |" for index, value in measured["classes"].items()]
    return lines


def _number(value: float | None) -> str:
    return "not in these people" if value is None else f"{value:.3f}"


def bundle_name(text: str) -> str:
    """A name that a bundle may have, of a folder's.

    >>> bundle_name("My Bundle (2)")
    'my-bundle-2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "adapted"
