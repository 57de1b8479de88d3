"""What is asked of the command `napari-mamba run`: one bundle, one or several cases, options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

OUTPUT_SUFFIXES: Mapping[str, str] = {
    "output": ".nrrd",
    "probabilities": ".nrrd",
    "uncertainty": ".nrrd",
    "residual": ".nrrd",
}
"""What each output's file ends in; labels get `.seg.nrrd`, which holds names, colours and terminology."""


@dataclass(frozen=True)
class Options:
    """Options of a run; None or empty: as the bundle says."""

    device: str = "auto"
    precision: str = "auto"
    tile: str = ""
    overlap: float | None = None
    mirror: bool | None = None
    axis: str = ""
    spacing: str = ""
    resample_channels: bool = False

    def arguments(self) -> list[str]:
        """As the command takes them."""
        words = [f"--device={self.device or 'auto'}"]
        for name in ("precision", "tile", "axis", "spacing"):
            value = getattr(self, name)
            if value and value != "auto":
                words.append(f"--{name}={value}")
        if self.overlap is not None:
            words.append(f"--overlap={self.overlap:g}")
        if self.mirror is not None:
            words.append("--mirror" if self.mirror else "--no-mirror")
        if self.resample_channels:
            words.append("--resample-channels")
        return words


@dataclass(frozen=True)
class Case:
    """One image: its channels' files, and where each output goes (keys of `OUTPUT_SUFFIXES`)."""

    name: str
    inputs: tuple[Path, ...]
    outputs: Mapping[str, Path] = field(default_factory=dict)
    region: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Job:
    """A whole run. `folder` is its own, and goes when the run is over."""

    bundle: str
    cases: tuple[Case, ...]
    options: Options
    folder: Path

    def write_cases(self) -> Path:
        """The file that `--cases` takes."""
        items = []
        for case in self.cases:
            item = {"name": case.name, "inputs": [str(path) for path in case.inputs]}
            item.update({name: str(path) for name, path in case.outputs.items()})
            if case.region is not None:
                item["region"] = [float(value) for value in case.region]
            items.append(item)
        path = self.folder / "cases.json"
        path.write_text(json.dumps(items), encoding="utf-8")
        return path

    def arguments(self) -> list[str]:
        """The arguments of the command; writes the list of cases."""
        cases = str(self.write_cases())
        return ["run", self.bundle, "--cases", cases, "--events", "jsonl", "--overwrite", *self.options.arguments()]


def output_name(output: str, task: str) -> str:
    """The file name of an output.

    >>> output_name("output", "segmentation"), output_name("output", "restoration")
    ('output.seg.nrrd', 'output.nrrd')
    """
    suffix = ".seg.nrrd" if (output, task) == ("output", "segmentation") else OUTPUT_SUFFIXES[output]
    return output + suffix
