"""What weights alone do not say, as a user says it in the window: a plain model. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import SignalGroupDescriptor

from napari_mamba.bundles.importers.words import parse_arguments, parse_names, parse_objects, parse_tile
from napari_mamba.errors import InputError

if TYPE_CHECKING:
    from napari_mamba.ui.bundles.imports import Unsaid


@dataclass
class Answers:
    """One text a question; empty where nothing is said.

    Parameters
    ----------
    preset : str
        Of those that fit; what else is empty is taken from it.
    arguments : str
        NAME=VALUE, with semicolons between them.
    """

    preset: str = ""
    arguments: str = ""
    tile: str = ""
    channels: str = ""
    classes: str = ""
    preparation: str = ""
    columns: str = ""
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    def choices(self) -> dict[str, Any]:
        """What `import_checkpoint` is told.

        Raises
        ------
        InputError
            If something is not written as it should be.

        Examples
        --------
        >>> Answers(tile="64,64", channels="T1", arguments="heads=8").choices()
        {'arguments': {'heads': 8}, 'tile': [64, 64], 'channels': ['T1']}
        """
        pairs = [pair.strip() for pair in self.arguments.split(";")]
        pairs = [pair for pair in pairs if pair and not pair.endswith("=")]  # those are not answered yet
        found: dict[str, Any] = {
            "preset": self.preset or None,
            "arguments": parse_arguments(pairs, "the field Arguments"),
            "tile": parse_tile(self.tile.replace("x", ",") or None),
            "channels": parse_names(self.channels or None),
            "classes": parse_names(self.classes or None),
            "preparation": parse_objects("preparation", self.preparation or None, "the field Preparation"),
            "columns": parse_objects("columns", self.columns or None, "the field Table columns"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def problem(self, unsaid: Unsaid) -> str:
        """Why these cannot be used, or what is still missing; empty where nothing is."""
        try:
            said = self.choices()
        except InputError as error:
            return str(error)
        if "preset" in said:
            said |= dict.fromkeys(("tile", "channels", "classes", "preparation"))
        said |= said.get("arguments", {})
        missing = [name for name in unsaid.missing if name not in said]
        return f"Still to be said: {', '.join(missing)}." if missing else ""
