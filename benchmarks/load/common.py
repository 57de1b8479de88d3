"""What the measurements under load share: a bundle that runs in a moment, memory, and where results go."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FIRST = 10
"""By then everything was used once."""


def tiny(folder: Path) -> Path:
    """A bundle with a two-stage network of random weights."""
    import torch

    from napari_mamba import bundles, models

    arguments = {
        "spatial_dims": 3,
        "input_channels": 1,
        "num_classes": 3,
        "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "input_size": [40] * 3,
    }
    classes = (("background", ""), ("one", "#e4a63a"), ("two", "#3a8fd9"))
    torch.manual_seed(0)
    spec = bundles.BundleSpec(
        name="tiny",
        version="0",
        title="Random weights",
        task="segmentation",
        network=bundles.Network("umamba_enc", arguments),
        channels=(bundles.Channel("T1", "MR"),),
        preparation=({"step": "normalise", "schemes": ["zscore"]},),
        tile=bundles.Tile((40,) * 3),
        classes=tuple(bundles.LabelClass(index, name, color) for index, (name, color) in enumerate(classes)),
        intended_use="Measuring. Not for clinical use.",
    )
    network = models.create("umamba_enc", **arguments)
    return bundles.save(folder / "tiny", spec, [network.state_dict()], "# Random weights")


def megabytes(process: int) -> float:
    """A process's resident memory."""
    import psutil

    return float(psutil.Process(process).memory_info().rss) / 2**20


def growth(values: list[float]) -> float | None:
    """From the tenth value to the last, in percent."""
    return round(100 * (values[-1] / values[FIRST - 1] - 1), 2) if len(values) > FIRST else None


def write(name: str, found: dict[str, Any], path: Path | None) -> None:
    """Print an outcome, and keep it with the day and the machine."""
    outcome = {"what": name, "day": datetime.now(UTC).date().isoformat(), "machine": platform.machine(), **found}
    print(json.dumps(outcome, indent=2))
    if path is not None:
        path.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
