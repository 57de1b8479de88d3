"""A look inside a network: which maps there are, what is asked, and the command that makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .jobs import Case, Options

MAPS: dict[str, tuple[str, str]] = {
    "order": ("Scan order", "layer"),
    "neighbours": ("Neighbour distance", "layer"),
    "state": ("State norm", "layer"),
    "components": ("State components", "layer"),
    "step_size": ("Step size", "layer"),
    "memory": ("Memory length", "layer"),
    "influence": ("Influence on the states", "layer"),
    "tokens": ("Token norm", "layer"),
    "attention": ("Attention", "voxel"),
    "unified": ("Unified attention", "voxel"),
    "rollout": ("Attention rollout", "voxel"),
    "field": ("Receptive field", "voxel"),
    "relevance": ("Relevance", "class"),
    "gradient": ("Gradient x input", "class"),
    "integrated": ("Integrated gradients", "class"),
    "class_attention": ("Class attention", "class"),
    "occlusion": ("Occlusion", "class"),
    "knockout": ("Knockout", "class"),
    "faithfulness": ("Faithfulness", "class"),
}
"""Title of each map of `napari-mamba explain`, and whether it is of a layer, a voxel or a class."""

SUFFIXES = {"volume": ".nii.gz", "curve": ".mrk.json", "table": ".csv", "facts": ".json", "figure": ".png"}
"""What the file of each kind of `map` event ends in."""


@dataclass(frozen=True)
class Look:
    """What is asked about a network on an image.

    Attributes
    ----------
    maps : tuple of str
        Keys of `MAPS`.
    world : tuple of 3 float, optional
        The point that is asked about: RAS mm in the image's own coordinates. None: the middle.
    layer : str
        The scanning layer; empty: the last one whose tokens are places.
    path : int
        One of the layer's paths, from 1; 0: all.
    target : str
        The class whose answer is explained; empty: that of the point.
    member : int
        Which network of an ensemble, from 1.
    list_only : bool
        Only list the layers.
    """

    maps: tuple[str, ...] = ("state",)
    world: tuple[float, float, float] | None = None
    layer: str = ""
    path: int = 0
    target: str = ""
    member: int = 1
    list_only: bool = False

    def arguments(self) -> list[str]:
        """As the command takes them."""
        words = [f"--what={','.join(self.maps)}", f"--member={self.member}"]
        if self.world is not None:
            words.append("--world=" + ",".join(f"{value:.6g}" for value in self.world))
        if self.layer:
            words.append(f"--layer={self.layer}")
        if self.path:
            words.append(f"--direction={self.path}")
        if self.target:
            words.append(f"--class={self.target}")
        if self.list_only:
            words.append("--list")
        return words


@dataclass(frozen=True)
class LookJob:
    """A whole look; the same to a runner as `jobs.Job`. `folder` is its own, and goes when it is over."""

    bundle: str
    inputs: tuple[Path, ...]
    look: Look
    options: Options
    folder: Path

    @property
    def cases(self) -> tuple[Case, ...]:
        """Its one image, for whoever sends files."""
        return (Case("look inside", self.inputs),)

    @property
    def maps_folder(self) -> Path:
        """Where the maps go."""
        return self.folder / "maps"

    def arguments(self) -> list[str]:
        """The arguments of the command."""
        words = ["explain", self.bundle, *map(str, self.inputs), "--output", str(self.maps_folder)]
        device = f"--device={self.options.device or 'auto'}"
        return [*words, "--events", "jsonl", "--overwrite", device, *self.look.arguments()]

    def request(self) -> dict[str, Any]:
        """What a server is asked for, beside the image."""
        look = self.look
        asked: dict[str, Any] = {"what": list(look.maps), "layer": look.layer, "path": look.path}
        asked |= {"target": look.target, "member": look.member, "only_list": look.list_only}
        return {**asked, "world": None if look.world is None else list(look.world)}
