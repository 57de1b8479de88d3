"""The loss and validation curves of a training run, as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(history: Sequence[dict[str, Any]], path: Path, title: str) -> Path | None:
    """Draw `history` to `path`; None where matplotlib (the `train` extra) is missing or there is nothing to draw."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    if not history:
        return None
    steps = [entry["step"] for entry in history]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, [entry["loss"] for entry in history])
    left.set(xlabel="step", ylabel="training loss", title=title)
    for key in history[-1]:
        if key not in ("step", "loss", "seconds_a_step", "seconds", "score"):
            right.plot(steps, [entry[key] for entry in history], label=key.replace("_", " "))
    right.set(xlabel="step", ylabel="validation")
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)
    return path
