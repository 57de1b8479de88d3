"""What is known about a bundle, from `napari-mamba models --json` of the place where it would run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN_CLASSES = 6
TASKS = ("segmentation", "restoration", "classification")
"""What this module can run on volumes and show. Doses need structures beside the CT, other tasks other things."""


@dataclass(frozen=True)
class BundleInfo:
    """A bundle that can be chosen."""

    name: str
    title: str = ""
    task: str = "segmentation"
    channels: tuple[str, ...] = ("image",)
    version: str = ""
    licence: str = ""
    intended_use: str = ""
    card: str = ""
    classes: tuple[Mapping[str, Any], ...] = ()
    sha256: str = ""

    @property
    def usable(self) -> bool:
        """Whether this module can run it."""
        return self.task in TASKS

    def shown(self) -> str:
        """A few lines for the module's panel."""
        lines = [f"{self.title} ({self.name} {self.version})", self.intended_use, f"Licence: {self.licence}"]
        hidden = self.task == "segmentation"  # its background, which is no segment
        classes = [str(one.get("name", "")) for one in self.classes if one.get("index") or not hidden]
        if classes:
            more = f" and {len(classes) - _SHOWN_CLASSES} more" if len(classes) > _SHOWN_CLASSES else ""
            lines.append(f"{len(classes)} classes: {', '.join(classes[:_SHOWN_CLASSES])}{more}")
        return "\n".join(line for line in lines if line.strip())


def read_bundles(text: str) -> list[BundleInfo]:
    """The bundles of `models --json`; an entry that is none is left out.

    Raises
    ------
    ValueError
        If the text is no list.
    """
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("the list of bundles cannot be read: update napari-mamba")
    return [_bundle(one) for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]


def _bundle(one: Mapping[str, Any]) -> BundleInfo:
    texts = {key: str(one.get(key) or "") for key in ("title", "version", "licence", "intended_use", "card", "sha256")}
    channels = tuple(str(channel.get("name", "image")) for channel in one.get("channels") or [{}])
    classes = tuple(one.get("classes") or ())
    return BundleInfo(one["name"], task=str(one.get("task") or ""), channels=channels, classes=classes, **texts)
