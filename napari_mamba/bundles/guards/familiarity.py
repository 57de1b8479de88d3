"""What the images of a bundle's training look like, in numbers, and how far another image is from them.

Kept in the bundle as `familiarity.json`, hashed like every file of it. The distance is Mahalanobis's in the directions
in which the training images differ most, and the rest of the difference beside it, against that of people who were
left out: probabilistic principal components (Tipping and Bishop, JRSS B 61:611, 1999). How such distances of a
network's own features tell images of another kind: Lee et al., arXiv:1807.03888. Beside it what images of known other
kinds look like: a regression that tells them from the training's (outlier exposure, Hendrycks et al.,
arXiv:1812.04606), for what differs little in all, as an image that lies upside down.
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
PARTS = ("image", "network", "around", "depth")
KINDS = tuple(f"{part}_kinds" for part in PARTS)
_MOST_FEATURES, _MOST_COMPONENTS, _MOST_LAYERS, _MOST_KINDS, _DIGITS = 20_000, 64, 32, 32, 5


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
class Kinds:
    """Images of other kinds that are known, and how each is told from those of the training.

    Attributes
    ----------
    names : tuple of str, K of them
        What such an image looks, in words for the user: "upside down", "like a CT scan".
    mean, scale : ndarray, shape (F,)
        A feature's difference from `mean` is divided by `scale`, and cut at five.
    weights : ndarray, shape (K, F)
    offsets : ndarray, shape (K,)
        Logarithm of how much likelier each kind is than the right one: weights times features, and offset.
    limit : float
        Distances above it are doubted.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    limit: float

    def distance(self, features: np.ndarray) -> float:
        """How surprising features (F,) of the right kind would be: 0 is not at all, 0.7 is as likely as not."""
        return float(np.logaddexp.reduce(np.append(self._odds(features), 0.0)))

    def strangest(self, features: np.ndarray) -> list[str]:
        """The likeliest of the other kinds."""
        return [self.names[int(np.argmax(self._odds(features)))]]

    def _odds(self, features: np.ndarray) -> np.ndarray:
        return self.weights @ clipped(features, self.mean, self.scale) + self.offsets

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it, rounded to five digits."""
        arrays = {name: _rounded(getattr(self, name)) for name in ("mean", "scale", "weights", "offsets")}
        return {"names": list(self.names), **arrays, "limit": float(self.limit)}


def clipped(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardised features, cut at five: one that is far out is not more than strange."""
    return np.clip((np.asarray(features, np.float64) - mean) / scale, -5, 5)


@dataclass(frozen=True, eq=False)
class Familiarity:
    """How the images of a training look: as they are, below their surface, inside the network, around what it found.

    Attributes
    ----------
    image, network, around, depth : Reference or None
    image_kinds, network_kinds, around_kinds, depth_kinds : Kinds or None
        Known images of other kinds, from the same features.
    layers : tuple of str
        Names of the modules of the first member whose outputs `network` is about.
    frame : tuple of three directions
        In RAS mm, of slices, columns and rows, to which images are turned before they are looked at; empty for right,
        anterior, superior.
    structure : tuple of int
        Labels that `around` is about.
    fitted : mapping
        Who was looked at: counts of people and images, for the card.
    """

    image: Reference | None = None
    network: Reference | None = None
    around: Reference | None = None
    layers: tuple[str, ...] = ()
    fitted: Mapping[str, Any] = field(default_factory=dict)
    image_kinds: Kinds | None = None
    network_kinds: Kinds | None = None
    around_kinds: Kinds | None = None
    frame: tuple[tuple[float, float, float], ...] = ()
    structure: tuple[int, ...] = ()
    depth: Reference | None = None
    depth_kinds: Kinds | None = None

    def to_bytes(self) -> bytes:
        """The content of `familiarity.json`."""
        parts = {name: part.to_dict() for name in (*PARTS, *KINDS) if (part := getattr(self, name)) is not None}
        values: dict[str, Any] = {"format": FORMAT, "format_version": 1, "layers": list(self.layers)}
        values |= {"frame": list(self.frame), "structure": list(self.structure), "fitted": dict(self.fitted)}
        return (json.dumps({**values, **parts}, ensure_ascii=False) + "\n").encode()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Features of each part."""
        return {name: len(part.mean) for name in (*PARTS, *KINDS) if (part := getattr(self, name)) is not None}


def familiarity_of(text: str, where: str) -> Familiarity:
    """Read `familiarity.json`; raises `BundleError` if it is damaged or contradicts itself."""
    values = parsed(text, where)
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        raise BundleError(f"{where}: does not say how familiar images look: get the bundle again")
    layers = values.get("layers", [])
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS or not all(isinstance(one, str) for one in layers):
        raise BundleError(f"{where}: 'layers' are names of at most {_MOST_LAYERS} layers")
    fitted = values.get("fitted", {})
    parts: dict[str, Any] = {
        name: _reference(values[name], f"{where}: '{name}'") for name in PARTS if values.get(name) is not None
    }
    parts |= {name: _kinds(values[name], f"{where}: '{name}'") for name in KINDS if values.get(name) is not None}
    if ("network" in parts or "network_kinds" in parts) and not layers:
        raise BundleError(f"{where}: names no layers of the network: get the bundle again")
    return Familiarity(
        **parts,
        layers=tuple(layers),
        fitted=fitted if isinstance(fitted, Mapping) else {},
        frame=_frame(values.get("frame", []), where),
        structure=_structure(values.get("structure", []), where),
    )


def _frame(values: Any, where: str) -> tuple[tuple[float, float, float], ...]:
    try:
        frame = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{where}: 'frame' is not three directions") from error
    if frame.size and (frame.shape != (3, 3) or not np.isfinite(frame).all()):
        raise BundleError(f"{where}: 'frame' is not three directions")
    return tuple((float(z), float(y), float(x)) for z, y, x in frame) if frame.size else ()


def _structure(values: Any, where: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(isinstance(one, int) and 0 <= one < 2**31 for one in values):
        raise BundleError(f"{where}: 'structure' is not a list of labels")
    return tuple(values)


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


def _kinds(values: Any, where: str) -> Kinds:
    try:
        names = tuple(str(name) for name in values["names"])
        arrays = {name: np.array(values[name], np.float64) for name in ("mean", "scale", "weights", "offsets")}
        limit = float(values["limit"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"{where} lacks numbers, or they are no numbers: get the bundle again") from error
    count, kinds = arrays["mean"].size, len(names)
    right = (
        0 < count <= _MOST_FEATURES
        and 0 < kinds <= _MOST_KINDS
        and arrays["mean"].shape == arrays["scale"].shape == (count,)
        and arrays["weights"].shape == (kinds, count)
        and arrays["offsets"].shape == (kinds,)
        and all(np.isfinite(one).all() for one in arrays.values())
    )
    if not right or not arrays["scale"].min() > 0 or not limit > 0:
        raise BundleError(f"{where} contradicts itself: get the bundle again")
    return Kinds(names, **arrays, limit=limit)


def _rounded(values: Sequence[Any] | np.ndarray) -> list[Any]:
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{value:.{_DIGITS}g}") for value in np.asarray(values).tolist()]
