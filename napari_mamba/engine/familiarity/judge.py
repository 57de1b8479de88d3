"""Is this image of the kind that a bundle knows? A number, and a sentence where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.bundles.guards.familiarity import Familiarity, Reference
from napari_mamba.engine.familiarity.image_features import image_features
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Judgement:
    """How far an image is from those of the training.

    Attributes
    ----------
    part : str
        "image", as it is given, or "network", what the network's layers answer.
    distance, limit : float
        About 1 is usual; above `limit` it is doubted.
    strangest : tuple of str
        What differs most.
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
        what = f"most in {' and '.join(self.strangest)}" if self.part == "image" else "most in what the network sees"
        return (
            f"This image is unlike those that {name} was made from, {what} (distance {self.distance:.1f}; theirs are "
            f"below {self.limit:.1f}): check that it shows the right part of the body, upright and whole, in the right "
            "kind of scan. Do not trust this result unseen."
        )

    def to_dict(self) -> dict[str, Any]:
        """For the provenance."""
        return {"distance": round(self.distance, 3), "limit": round(self.limit, 3), "familiar": self.familiar}


def familiarity_of(bundle: Any) -> Familiarity | None:
    """What a bundle keeps about its training images; older ones keep nothing."""
    return getattr(bundle, "familiarity", None)


def judge_image(volume: Volume, bundle: Any) -> Judgement | None:
    """From the image as it is given; None where the bundle keeps nothing to compare with."""
    known = familiarity_of(bundle)
    if known is None or known.image is None or min(volume.shape) < 1:
        return None
    mask = any(channel.modality.upper() == "MASK" for channel in bundle.channels)
    return _judge("image", known.image, image_features(volume, mask))


def judge_network(features: np.ndarray | None, bundle: Any) -> Judgement | None:
    """From what `ChannelStatistics` heard; None where the bundle keeps nothing of the kind."""
    known = familiarity_of(bundle)
    if known is None or known.network is None or features is None:
        return None
    return _judge("network", known.network, features)


def _judge(part: str, reference: Reference, features: np.ndarray) -> Judgement | None:
    if features.shape != reference.mean.shape:  # of a later version, or another network
        return None
    return Judgement(part, reference.distance(features), reference.limit, tuple(reference.strangest(features)))


def unfamiliar(judgements: Sequence[Judgement | None], name: str) -> list[str]:
    """One sentence for all that is not familiar, of the first one that says so."""
    found = [one for one in judgements if one is not None and not one.familiar]
    return [found[0].sentence(name)] if found else []
