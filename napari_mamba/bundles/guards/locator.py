"""Which other bundle finds the field of view of one that was made for a crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from napari_mamba.bundles.description.fields import Fields
from napari_mamba.errors import BundleError

_MOST_PARTS = 16


@dataclass(frozen=True)
class Locator:
    """Where in a larger image a bundle looks.

    Attributes
    ----------
    bundle : str
        Name of the segmentation bundle that finds the places.
    parts : mapping of str to tuple of int
        What each place is called ("left"), and the labels of `bundle` that lie there. Each is answered by itself.
    larger_than_mm : tuple of float
        Sides of the image along right, anterior, superior. Places are looked for where one of them is longer; a
        smaller image is the crop itself.
    margin_mm : float
        Added to the labels' bounding box on each side.
    min_ml : float
        Labels of less than this are not taken for the place.

    Raises
    ------
    BundleError
        If a value cannot be.
    """

    bundle: str
    parts: Mapping[str, tuple[int, ...]]
    larger_than_mm: tuple[float, float, float]
    margin_mm: float = 5.0
    min_ml: float = 0.3

    def __post_init__(self) -> None:
        if not self.bundle or not 0 < len(self.parts) <= _MOST_PARTS:
            raise BundleError(f"a locator names a bundle and 1 to {_MOST_PARTS} places")
        if not all(labels and min(labels) > 0 for labels in self.parts.values()):
            raise BundleError("a locator's places are labels above 0 of the bundle that finds them")
        if len(self.larger_than_mm) != 3 or min(*self.larger_than_mm, self.min_ml) <= 0 or self.margin_mm < 0:
            raise BundleError("a locator's sizes are three positive sides in mm, a margin in mm and a volume in ml")


def locator_of(one: Fields) -> Locator:
    """Read the part "locator" of `bundle.json`."""
    parts = one.fields("parts")
    sides = one.numbers("larger_than_mm")
    if len(sides) != 3:
        raise BundleError(f"{one.where}: 'larger_than_mm' has three sides")
    return Locator(
        one.text("bundle"),
        {str(name): parts.integers(str(name)) for name in parts.values},
        (sides[0], sides[1], sides[2]),
        one.number("margin_mm", 5.0),
        one.number("min_ml", 0.3),
    )
