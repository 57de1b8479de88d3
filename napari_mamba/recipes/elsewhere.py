"""A card's section on images from elsewhere: what was tried, and what failed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any


def elsewhere(found: Sequence[str], familiar: Mapping[str, Any] | None = None) -> str:
    """The section, in Markdown.

    Parameters
    ----------
    found : sequence of str
        What was tried on scans of other people, places and kinds, and what came of it.
    familiar : mapping, optional
        How often images of its own kind and of others are doubted: "right" and "others", each with "images" and
        "doubted", as `python -m benchmarks.bundles.doubt fit NAME --write` keeps it.
    """
    said = [*found, *([_doubted(familiar)] if familiar else [])]
    lines = [textwrap.fill(f"- {one}", 118, subsequent_indent="  ", break_on_hyphens=False) for one in said]
    return "## Elsewhere\n\nWhat was tried on scans that are not like the training's, and what failed.\n\n" + (
        "\n".join(lines) + "\n"
    )


def _doubted(familiar: Mapping[str, Any]) -> str:
    right, others = familiar["right"], familiar["others"]
    missed = [f"{name} ({n})" for name, n in familiar.get("missed", {}).items()]
    by = "and by its network's layers" if familiar.get("network") else "from the image alone"
    return (
        f"How familiar an image looks is told before a run, {by}: of {right['images']} images of its own "
        f"kind, of people "
        f"left out, {right['doubted']} were doubted; of {others['images']} others {others['doubted']}"
        + (f", not: {', '.join(missed)}" if missed else "")
        + ". Kinds and numbers: `docs/familiarity.md`. Images of the right kind from other scanners and boxes may be "
        "doubted too."
    )
