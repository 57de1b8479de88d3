"""How fast a recipe learns with other optimisers and learning rates: the same network, the same samples.

    python -m benchmarks.bundles.optimisers hippocampus-mr --data DIR --steps 1500 adamw:1.5e-3 muon:3e-3

Each run has the whole schedule, in so many steps. On two CPU cores run two of them side by side with --threads 1.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from napari_mamba import bundles, recipes
from napari_mamba.training import loop
from napari_mamba.training.history import history
from napari_mamba.training.optimisation.optimisers import KINDS


def learn(arm: str, asked: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Train once; returns the history. `arm` is OPTIMISER:RATE."""
    kind, _, rate = arm.partition(":")
    made = recipes.recipe(asked.name, asked.data, asked.variant)
    made.schedule = replace(
        made.schedule,
        optimiser=kind,
        learning_rate=float(rate),
        steps=asked.steps,
        warm_up=min(made.schedule.warm_up, asked.steps // 10),
        validate_every=asked.every or max(asked.steps // 5, 1),
    )
    start = bundles.load(asked.start) if asked.start else None
    loop.fit(
        made,
        folder,
        device=asked.device,
        start=start,
        on_log=lambda entry: print(f"{arm} {format_entry(entry)}", flush=True),
    )
    return history(folder)


def checked(text: str) -> str:
    """OPTIMISER:RATE as it was given; raises where it is none, before anything is trained."""
    kind, _, rate = text.partition(":")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r}: give OPTIMISER:RATE, the optimiser one of {', '.join(KINDS)}")
    try:
        float(rate)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give a rate after the colon, such as {kind}:1e-3") from None
    return text


def format_entry(entry: dict[str, float]) -> str:
    """An entry of the history in one line."""
    return " ".join(f"{key} {value:.4g}" for key, value in entry.items())


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a line a run, its loss and score at each validation."""
    steps = [int(entry["step"]) for entry in next(iter(found.values()))]
    head = ["optimiser, rate", "seconds a step", *(f"loss, score at {step}" for step in steps)]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    for arm, entries in found.items():
        seconds = sum(entry["seconds_a_step"] for entry in entries) / len(entries)
        cells = [arm.replace(":", ", "), f"{seconds:.3f}", *(f"{e['loss']:.3f}, {e['score']:.4f}" for e in entries)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train every arm and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the bundle")
    parser.add_argument("arms", nargs="+", type=checked, help="OPTIMISER:RATE, such as adamw:1.5e-3")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--start", help="a bundle to begin from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, help="steps between validations; a fifth if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = {arm: learn(arm, asked, Path(folder) / str(number)) for number, arm in enumerate(asked.arms)}
    print(table(found))


if __name__ == "__main__":
    main()
