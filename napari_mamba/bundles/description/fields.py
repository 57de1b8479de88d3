"""Typed access to parsed JSON that came from outside: each miss is one sentence with the field's name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_mamba.errors import BundleError

_REQUIRED: Any = object()


@dataclass(frozen=True)
class Fields:
    """A JSON object, and where it came from.

    Each method returns the named value if it has the method's type, its default where the field is missing, and
    otherwise raises `BundleError`.

    >>> Fields({"size": [8, 8]}, "bundle.json").integers("size")
    (8, 8)
    """

    values: Any
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            raise BundleError(f"{self.where}: is not a JSON object")

    def _get(self, key: str, kind: type | tuple[type, ...], what: str, default: Any) -> Any:
        value = self.values.get(key, default)
        if value is _REQUIRED:
            raise BundleError(f"{self.where}: lacks the field {key!r}")
        if value is not default and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self._wrong(key, what)
        return value

    def _wrong(self, key: str, what: str) -> BundleError:
        return BundleError(f"{self.where}: the field {key!r} must be {what}")

    def text(self, key: str, default: str = _REQUIRED) -> str:
        return self._get(key, str, "text", default)

    def flag(self, key: str, default: bool = _REQUIRED) -> bool:
        return self._get(key, bool, "true or false", default)

    def integer(self, key: str, default: int = _REQUIRED) -> int:
        return self._get(key, int, "a whole number", default)

    def number(self, key: str, default: float = _REQUIRED) -> float:
        value = self._get(key, (int, float), "a number", default)
        if not math.isfinite(value):
            raise self._wrong(key, "a finite number")
        return value

    def mapping(self, key: str, default: Mapping[str, Any] = _REQUIRED) -> dict[str, Any]:
        return dict(self._get(key, dict, "an object", default))

    def fields(self, key: str) -> Fields:
        return Fields(self.mapping(key), f"{self.where}, {key}")

    def items(self, key: str, default: Any = _REQUIRED) -> list[Fields]:
        """A list of objects."""
        found = self._get(key, list, "a list of objects", default)
        return [Fields(value, f"{self.where}, {key}[{i}]") for i, value in enumerate(found)]

    def texts(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        return self._tuple(key, str, "a list of texts", default)

    def integers(self, key: str, default: Any = _REQUIRED) -> tuple[int, ...]:
        return self._tuple(key, int, "a list of whole numbers", default)

    def numbers(self, key: str, default: Any = _REQUIRED) -> tuple[float, ...]:
        return self._tuple(key, (int, float), "a list of numbers", default)

    def _tuple(self, key: str, kind: Any, what: str, default: Any) -> tuple[Any, ...]:
        found = self._get(key, list, what, default)
        if any(not isinstance(value, kind) or isinstance(value, bool) for value in found):
            raise self._wrong(key, what)
        return tuple(found)
