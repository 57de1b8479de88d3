"""Is this image of the kind that a bundle knows? A number, and a sentence where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.bundles.guards.familiarity import Familiarity
from napari_mamba.engine.familiarity import flat
from napari_mamba.engine.familiarity.around_features import around_features
from napari_mamba.engine.familiarity.depth_features import depth_features
from napari_mamba.engine.familiarity.image_features import image_features
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Judgement:
    """How far an image is from those of the training.

    Attributes
    ----------
    part : str
        "image", as it is given, "depth", below the surface of what it shows, "network", what the network's layers
        answer, or "around", what lies around what it found; with "_kinds" behind it: whether that is like what is known
        of other kinds. "flat": whether it is a scan at all, or labels.
    distance, limit : float
        About 1 is usual, of kinds 0; above `limit` it is doubted.
    strangest : tuple of str
        What differs most; of kinds the likeliest.
    """

    part: str
    distance: float
    limit: float
    strangest: tuple[str, ...] = ()

    @property
    def familiar(self) -> bool:
        """Within the limit."""
        return self.distance <= self.limit

    def sentence(self, name: str) -> str:
        """What a user should read, of the bundle `name`."""
        if self.part == "flat":
            return (
                f"This image looks like labels, flat pieces of a few whole numbers, and {name} expects a scan: give "
                "the scan that they were drawn on. Do not trust this result unseen."
            )
        if self.part.endswith("_kinds"):
            what = f"looks {self.strangest[0]} to {name}, not like those that it was made from"
        elif self.part == "network":
            what = f"is unlike those that {name} was made from, most in what the network sees"
        else:
            what = f"is unlike those that {name} was made from, most in {' and '.join(self.strangest)}"
        return (
            f"This image {what} (distance {self.distance:.1f}; theirs are below {self.limit:.1f}): check that it shows "
            "the right part of the body, upright and whole, in the right kind of scan. Do not trust this result unseen."
        )

    def to_dict(self) -> dict[str, Any]:
        """For the provenance."""
        return {"distance": round(self.distance, 3), "limit": round(self.limit, 3), "familiar": self.familiar}


def familiarity_of(bundle: Any) -> Familiarity | None:
    """What a bundle keeps about its training images; older ones keep nothing."""
    return getattr(bundle, "familiarity", None)


def judge_image(volume: Volume, bundle: Any) -> list[Judgement]:
    """From the image as it is given; empty where the bundle keeps nothing to compare with.

    Of a pair to be registered both images are looked at, and the stranger one counts.
    """
    known = familiarity_of(bundle)
    if known is None or min(volume.shape) < 1:
        return []
    mask = any(channel.modality.upper() == "MASK" for channel in bundle.channels)
    both = volume.channels > 1 and getattr(bundle, "task", "") == "registration"
    worst: dict[str, Judgement] = {}
    for channel in range(volume.channels if both else 1):
        image = Volume(volume.data[channel : channel + 1], volume.affine, name=volume.name) if both else volume
        labels = [] if mask else _judge_flat(image)
        found = labels + _judge(known, "image", image_features(image, mask, known.frame)) + _judge_depth(known, image)
        for one in found:
            last = worst.get(one.part)
            if last is None or one.distance / one.limit > last.distance / last.limit:
                worst[one.part] = one
    return list(worst.values())


def _judge_depth(known: Familiarity, volume: Volume) -> list[Judgement]:
    """Empty where the bundle keeps nothing of the kind, or nothing of the image lies deep enough."""
    if known.depth is None and known.depth_kinds is None:
        return []
    features = depth_features(np.asarray(volume.data[0]), volume.spacing)
    return [] if features is None else _judge(known, "depth", features)


def _judge_flat(volume: Volume) -> list[Judgement]:
    """Kept where it is doubted alone: a scan's share of equal neighbours says nothing about its kind."""
    share = flat.share_of_equal_neighbours(np.asarray(volume.data[0]))
    return [Judgement("flat", share, flat.LIMIT)] if share > flat.LIMIT else []


def judge_network(features: np.ndarray | None, bundle: Any) -> list[Judgement]:
    """From what `ChannelStatistics` heard; empty where the bundle keeps nothing of the kind."""
    known = familiarity_of(bundle)
    return [] if known is None or features is None else _judge(known, "network", features)


def judge_around(volume: Volume, labels: Volume | None, bundle: Any) -> list[Judgement]:
    """From what lies around the structure that was found; empty where the bundle keeps nothing of the kind."""
    known = familiarity_of(bundle)
    if known is None or labels is None or (known.around is None and known.around_kinds is None):
        return []
    mask = np.isin(np.asarray(labels.data)[0], known.structure)
    features = around_features(volume, mask, known.frame)
    return [] if features is None else _judge(known, "around", features)


def _judge(known: Familiarity, part: str, features: np.ndarray) -> list[Judgement]:
    found = []
    for name in (f"{part}_kinds", part):
        kept = getattr(known, name)
        if kept is None or (part != "image" and len(features) != len(kept.mean)) or len(features) < len(kept.mean):
            continue  # of a later version, or another network
        seen = features[: len(kept.mean)]  # new features of an image come last
        found.append(Judgement(name, kept.distance(seen), kept.limit, tuple(kept.strangest(seen))))
    return found


def unfamiliar(judgements: Sequence[Judgement], name: str) -> list[str]:
    """One sentence for all that is not familiar, of the first one that says so."""
    found = [one for one in judgements if not one.familiar]
    return [found[0].sentence(name)] if found else []
