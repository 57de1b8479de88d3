"""What stands in the site's contents, by what a reader wants. A page that is named nowhere here stands under "More"."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = {
    "Start": ["README", "docs/tutorial", "docs/terms", "sample_data/README"],
    "Tasks": [
        *(
            f"docs/tasks/{task}"
            for task in (
                "segment",
                "denoise",
                "sharpen",
                "classify",
                "tables",
                "heart",
                "films",
                "slides",
                "fuse",
                "dose",
                "look-inside",
            )
        ),
        "docs/tasks/*",
        "docs/registration",
        "docs/radiotherapy",
    ],
    "In napari": ["docs/napari", "docs/results", "docs/formats"],
    "In 3D Slicer": ["slicer_extension/README"],
    "As a command": ["docs/command", "docs/cohorts", "docs/events", "docs/server"],
    "In Python": ["docs/python/index", "docs/engine", "docs/python/*"],
    "Look inside": ["docs/look_inside", "docs/scan_orders"],
    "Your own labels and networks": [
        "docs/learn_*",
        "docs/adapting",
        "docs/own_training",
        "docs/bundles",
        "docs/architectures",
        "docs/training",
    ],
    "Large volumes and speed": [
        "docs/scale",
        "docs/scale_*",
        "docs/speed",
        "docs/scan_cuda",
        "docs/gpu_*",
        "benchmarks/*/results/*",
    ],
    "The models": ["docs/models", "napari_mamba/bundles/shipped/*/README"],
    "For developers": ["CONTRIBUTING", "docs/architecture", "docs/reliability", "SECURITY", "CHANGELOG"],
}
"""Patterns of pages without their ending; one that matches nothing (yet) is left out."""


def pages(pattern: str) -> list[str]:
    """Pages that a pattern names, by their place in the repository, without their ending."""
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob(f"{pattern}.md"))


def contents() -> dict[str, list[str]]:
    """Each heading with its pages, none twice; pages of docs/ that no heading names come last."""
    seen = {"docs/index"}
    found: dict[str, list[str]] = {}
    for heading, patterns in {**CONTENTS, "More": ["docs/**/*"]}.items():
        named = dict.fromkeys(page for pattern in patterns for page in pages(pattern))  # in their order, each once
        new = [page for page in named if page not in seen]
        seen.update(new)
        if new:
            found[heading] = new
    return found


def add_contents(app: object, name: str, source: list[str]) -> None:
    """Sphinx's event "source-read": put the contents at the end of the front page, to be shown beside every page."""
    if name == "docs/index":
        for heading, names in contents().items():
            lines = "\n".join(f"/{page}" for page in names)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{lines}\n```\n"
