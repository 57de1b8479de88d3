"""A MONAI bundle's configuration, read as data: references are followed, expressions never run.

Format: docs.monai.io/en/stable/config_syntax.html. "@a::b" stands for another entry, "%file" for another file and
"$code" for the value of a piece of Python, which is what is not done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_mamba.bundles.doors import check_values, parsed, text_of
from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted

_MAX_DEPTH, _MOST_VALUES = 20, 100_000


class Config:
    """The entries of a configuration file.

    Parameters
    ----------
    path : Path
        ".json", or ".yaml" where PyYAML is installed.

    Raises
    ------
    BundleError
        If the file is missing or is not an object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = _read(path)
        self._left = _MOST_VALUES

    def get(self, key: str, default: Any = None) -> Any:
        """The value of an entry with its references followed, all of which has to be plain data.

        Raises
        ------
        BundleError
            If it needs an expression to be run; the message names it.
        """
        if key not in self.entries:
            return default
        return self.plain(self.entries[key], key)

    def plain(self, value: Any, where: str, depth: int = 0) -> Any:
        """`value` with references followed; `where` names it in messages."""
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise BundleError(f"{self.path}: {where!r} refers to itself, or to more than a configuration says")
        if isinstance(value, str):
            return self._text(value, where, depth)
        if isinstance(value, Mapping):
            return {key: self.plain(one, f"{where}::{key}", depth + 1) for key, one in value.items()}
        if isinstance(value, list):
            return [self.plain(one, f"{where}::{index}", depth + 1) for index, one in enumerate(value)]
        return value

    def _text(self, text: str, where: str, depth: int) -> Any:
        if text.startswith("$") or "$@" in text:
            raise BundleError(
                f"{self.path}: {where!r} is the expression {quoted(text)}, which would have to be run: write its value "
                "there"
            )
        if text.startswith("%"):
            raise BundleError(f"{self.path}: {where!r} refers to the file {quoted(text[1:])}: write its value there")
        if not text.startswith("@"):
            return text
        value: Any = self.entries
        for part in text[1:].replace("#", "::").split("::"):
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise BundleError(f"{self.path}: {where!r} refers to {quoted(text)}, which is not there") from error
            if isinstance(value, str) and value.startswith("@") and value != text:
                value = self._text(value, where, depth + 1)
        return self.plain(value, where, depth + 1)


def target(component: Any) -> str:
    """The class that a component is of, without its module: "Spacingd"."""
    name = component.get("_target_", "") if isinstance(component, Mapping) else ""
    return str(name).rsplit(".", 1)[-1]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = text_of(path)
        values = parsed(text, path) if path.suffix == ".json" else _yaml(path, text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({quoted(error)})") from error
    check_values(values, path)
    if not isinstance(values, dict):
        raise BundleError(f"{path}: is not a configuration, which is an object with names")
    return values


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise BundleError(f"{path}: reading it needs PyYAML: install it, or write the file as JSON") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
