"""The history of a training run: an entry each validation, in a file and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HISTORY = "history.jsonl"


def history(output: Path) -> list[dict[str, float]]:
    """The entries of a run's `history.jsonl`."""
    path = Path(output) / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tensorboard_writer(output: Path) -> Any:
    """TensorBoard's writer beside the history; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # TensorBoard is an extra; history.jsonl holds the same numbers
        return None
    return SummaryWriter(str(output / "tensorboard"))


def log(output: Path, board: Any, entry: dict[str, float]) -> None:
    """Add an entry to the history, and to TensorBoard's."""
    with (output / HISTORY).open("a") as file:
        file.write(json.dumps(entry) + "\n")
    if board is not None:
        for key, value in entry.items():
            if key != "step":
                board.add_scalar(key, value, entry["step"])
        board.flush()


def truncate_history(path: Path, step: int) -> None:
    """Drop entries past the checkpoint: the steps between are made again."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept))
