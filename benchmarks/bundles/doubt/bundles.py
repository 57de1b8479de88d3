"""Which images are right for each bundle, what is held out of the fitting, and what is listened to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.bundles.doubt.kinds import heads, hearts, hippocampi, plans, shapes
from benchmarks.bundles.doubt.kinds.images import ON_ITS_SIDE, Example

ENCODER = tuple(f"encoder.stages.{stage}" for stage in range(4))
ELSEWHERE = frozenset({"thigh, MR", "abdomen, MR"})
"""Kinds of wrong images that no fitting saw, of any bundle."""
TURNED = frozenset({"upside down", "back to front", "axes exchanged", "turned by 90 degrees", ON_ITS_SIDE})
HARMLESS = TURNED | {"half of it"}
"""What a network that looks at a few voxels at a time does the same to."""


@dataclass(frozen=True)
class Kind:
    """What is looked at.

    Attributes
    ----------
    examples : callable
        Makes the images, from the folder of data.
    unseen : frozenset of str
        Kinds of wrong images that neither the fitting nor the limits saw.
    neutral : frozenset of str
        Changes that do not matter to the bundle, and are left away.
    layers : tuple of str
        Of the network, listened to where it is asked for.
    frame, structure
        As in `Familiarity`.
    floors : mapping
        Least spreads other than those of `training.scoring.familiarity`.
    parts : tuple of str
        What of the features is fitted: "image", "network", "around", "depth", with or without "_kinds". What lies how
        deep is looked at in right images and in CTs kept in a window alone.
    sparing : bool
        A false doubt is worse than a missed one: the surprise about an image's kind has the highest limit that leaves
        no more than `fitting.MISSED` of the other images that choose undoubted.
    """

    examples: Callable[[Path], Iterator[Example]]
    unseen: frozenset[str] = ELSEWHERE
    neutral: frozenset[str] = frozenset()
    layers: tuple[str, ...] = ()
    frame: tuple[tuple[float, float, float], ...] = ()
    structure: tuple[int, ...] = ()
    floors: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[str, ...] = ("image", "image_kinds")
    sparing: bool = False


HEADS = ELSEWHERE
_DEEP = ("image", "image_kinds", "depth_kinds")

KINDS: Mapping[str, Kind] = {
    "hippocampus-mr": Kind(hippocampi.examples, layers=(*ENCODER, "decoder.stages.2")),
    "heart-mr": Kind(
        hearts.examples,
        ELSEWHERE | {"turned by 270 degrees"},
        frame=hearts.FRAME,
        structure=(1,),
        parts=("image", "image_kinds", "around_kinds"),
    ),
    "adrenal-shape": Kind(shapes.examples, frozenset({"parotid gland"}), layers=("layer1", "layer2", "layer3")),
    "brain-structures-mr": Kind(heads.examples, HEADS, parts=_DEEP),
    "mr-quality": Kind(heads.examples, HEADS, parts=_DEEP),
    "mr-denoise": Kind(heads.examples, HEADS, HARMLESS, parts=_DEEP),
    "mr-superres": Kind(partial(heads.examples, thick=True), HEADS, HARMLESS, parts=_DEEP, sparing=True),
    "dose-headneck-ct": Kind(plans.examples),
    "organs-headneck-ct": Kind(plans.examples),
}
