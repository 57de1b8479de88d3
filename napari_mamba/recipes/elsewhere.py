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
    right, others, unseen = familiar["right"], familiar["others"], familiar.get("held_out_kinds")
    missed = [f"{name} ({n})" for name, n in familiar.get("missed", {}).items()]
    by = [
        name for name, kept in (("its network's layers", "network"), ("what it finds", "around")) if familiar.get(kept)
    ]
    how = f"before a run from the image, and after it from {' and '.join(by)}" if by else "before a run from the image"
    said = (
        f"How familiar an image looks is told {how}: of {right['images']} images of its own kind, of people left out, "
        f"{right['doubted']} were doubted; of {others['images']} others {others['doubted']}"
    )
    if unseen and unseen["images"]:
        kinds = ", ".join(familiar.get("kinds_held_out", ()))
        said += f", and of {unseen['images']} of kinds that the fitting did not see ({kinds}) {unseen['doubted']}"
    said += f". Not doubted were: {', '.join(missed)}" if missed else ""
    return f"{said}. Kinds and numbers: `docs/familiarity.md`."
