"""What the images of a bundle's training look like, in numbers, and how far another image is from them.

Kept in the bundle as `familiarity.json`, hashed like every file of it. The distance is Mahalanobis's in the directions
in which the training images differ most, and the rest of the difference beside it, against that of people who were
left out: probabilistic principal components (Tipping and Bishop, JRSS B 61:611, 1999). How such distances of a
network's own features tell images of another kind: Lee et al., arXiv:1807.03888.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from napari_mamba.bundles.doors import parsed
from napari_mamba.errors import BundleError

FAMILIARITY = "familiarity.json"
FORMAT = "napari-mamba familiarity"
PARTS = ("image", "network")
_MOST_FEATURES, _MOST_COMPONENTS, _MOST_LAYERS, _DIGITS = 20_000, 64, 32, 5


@dataclass(frozen=True, eq=False)
class Reference:
    """The usual values of some features, and how they vary.

    Attributes
    ----------
    groups : mapping of str to int
        Names of what is looked at, in words for the user, and how many features each has, in their order.
    mean, scale : ndarray, shape (F,)
        A feature's difference from `mean` is divided by `scale`.
    components : ndarray, shape (K, F)
        Orthonormal directions in which the training images differ most.
    variances : ndarray, shape (K,)
        Their variance along each.
    residual : float
        Variance of what is left, in all other directions together.
    limit : float
        Distances above it are doubted.
    """

    groups: Mapping[str, int]
    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    variances: np.ndarray
    residual: float
    limit: float

    def distance(self, features: np.ndarray) -> float:
        """How far features (F,) are from the usual ones: about 1 for an image like those of the training."""
        along, rest = self._parts(features)
        usual = float(np.mean(along**2 / self.variances)) if len(self.variances) else 0.0
        return float(np.sqrt((usual + float(rest @ rest) / self.residual) / (2 if len(self.variances) else 1)))

    def strangest(self, features: np.ndarray, count: int = 2) -> list[str]:
        """The groups that differ most from the usual, most first."""
        off = np.square((np.asarray(features, np.float64) - self.mean) / self.scale)
        ends = np.cumsum(list(self.groups.values()))[:-1]
        share = {name: float(part.sum()) for name, part in zip(self.groups, np.split(off, ends), strict=True)}
        return sorted(share, key=lambda name: -share[name])[:count]

    def _parts(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        off = (np.asarray(features, np.float64) - self.mean) / self.scale
        along = self.components @ off
        return along, off - self.components.T @ along

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, rounded to five digits."""
        arrays = ("mean", "scale", "components", "variances")
        return {
            "groups": dict(self.groups),
            **{name: _rounded(getattr(self, name)) for name in arrays},
            "residual": float(self.residual),
            "limit": float(self.limit),
        }


@dataclass(frozen=True, eq=False)
class Familiarity:
    """How the images of a training look, before the network (`image`) and inside it (`network`).

    Attributes
    ----------
    image, network : Reference or None
    layers : tuple of str
        Names of the modules of the first member whose outputs `network` is about.
    fitted : mapping
        Who was looked at: counts of people and images, for the card.
    """

    image: Reference | None = None
    network: Reference | None = None
    layers: tuple[str, ...] = ()
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The content of `familiarity.json`."""
        parts = {name: part.to_dict() for name in PARTS if (part := getattr(self, name)) is not None}
        values = {"format": FORMAT, "format_version": 1, "layers": list(self.layers), "fitted": dict(self.fitted)}
        return (json.dumps({**values, **parts}, ensure_ascii=False) + "\n").encode()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Features of each part."""
        return {name: len(part.mean) for name in PARTS if (part := getattr(self, name)) is not None}


def familiarity_of(text: str, where: str) -> Familiarity:
    """Read `familiarity.json`; raises `BundleError` if it is damaged or contradicts itself."""
    values = parsed(text, where)
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        raise BundleError(f"{where}: does not say how familiar images look: get the bundle again")
    layers = values.get("layers", [])
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS or not all(isinstance(one, str) for one in layers):
        raise BundleError(f"{where}: 'layers' are names of at most {_MOST_LAYERS} layers")
    fitted = values.get("fitted", {})
    parts = {name: _reference(values[name], f"{where}: '{name}'") for name in PARTS if values.get(name) is not None}
    if "network" in parts and not layers:
        raise BundleError(f"{where}: names no layers of the network: get the bundle again")
    return Familiarity(**parts, layers=tuple(layers), fitted=fitted if isinstance(fitted, Mapping) else {})


def _reference(values: Any, where: str) -> Reference:
    try:
        groups = {str(name): int(count) for name, count in values["groups"].items()}
        arrays = {name: np.array(values[name], np.float64) for name in ("mean", "scale", "components", "variances")}
        numbers = {name: float(values[name]) for name in ("residual", "limit")}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{where} lacks numbers, or they are no numbers: get the bundle again") from error
    count, kept = len(arrays["mean"]) if arrays["mean"].ndim == 1 else 0, arrays["variances"].size
    right = (
        0 < count <= _MOST_FEATURES
        and kept <= _MOST_COMPONENTS
        and sum(groups.values()) == count
        and min(groups.values()) > 0
        and arrays["scale"].shape == (count,)
        and arrays["variances"].shape == (kept,)
        and arrays["components"].size == kept * count
    )
    positive = right and arrays["scale"].min() > 0 and arrays["variances"].min(initial=1.0) > 0
    if not positive or not min(numbers.values()) > 0:
        raise BundleError(f"{where} contradicts itself: get the bundle again")
    arrays["components"] = arrays["components"].reshape(kept, count)
    return Reference(
        groups,
        arrays["mean"],
        arrays["scale"],
        arrays["components"],
        arrays["variances"],
        numbers["residual"],
        numbers["limit"],
    )


def _rounded(values: Sequence[Any] | np.ndarray) -> list[Any]:
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{value:.{_DIGITS}g}") for value in np.asarray(values).tolist()]
