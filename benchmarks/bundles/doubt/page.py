"""The tables of docs/familiarity.md, from what the bundles keep about their own fitting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bundles.doubt.bundles import KINDS
from napari_mamba import bundles

PAGE = Path(__file__).parents[3] / "docs/familiarity.md"
FIRST, LAST = "<!-- tables: python -m benchmarks.bundles.doubt page -->", "<!-- end of the tables -->"


def write() -> None:
    """Put the tables between the page's two marks."""
    text = PAGE.read_text()
    before, after = text.split(FIRST)[0], text.split(LAST)[1]
    PAGE.write_text(f"{before}{FIRST}\n\n{tables()}\n\n{LAST}{after}")


def tables() -> str:
    """All bundles in one, then one each; Markdown."""
    lines = [
        "| bundle | right images doubted | other images doubted | of kinds that no fitting saw |",
        "| --- | --- | --- | --- |",
    ]
    each, keys = [], ("right", "others", "held_out_kinds")
    total = {key: {"images": 0, "doubted": 0} for key in keys}
    for name in KINDS:
        bundle = bundles.load(name)
        found = bundle.metrics.get("familiar")
        if not found or bundle.familiarity is None:
            continue
        cells = [_share(found, key) for key in keys]
        for key in keys:
            for count in total[key]:
                total[key][count] += found.get(key, {}).get(count, 0)
        lines.append(f"| {name} | {' | '.join(cells)} |")
        each.append(f"### {name}\n\n{found['table']}\n\n{_limits(bundle.familiarity)}")
    lines.append(f"| together | {' | '.join(_share(total, key) for key in keys)} |")
    return "\n".join(lines) + "\n\n" + "\n\n".join(each)


def _share(found: dict[str, Any], key: str) -> str:
    counts = found.get(key, {"images": 0, "doubted": 0})
    share = f" ({100 * counts['doubted'] / counts['images']:.0f}%)" if counts["images"] else ""
    return f"{counts['doubted']} of {counts['images']}{share}"


def _limits(familiarity: Any) -> str:
    """How many images fitted it."""
    fitted = familiarity.fitted
    return (
        f"Fitted on {fitted['fit']['right']} right images and {fitted['fit']['others']} others; the limits were chosen "
        f"on {fitted['choose']['right']} and {fitted['choose']['others']}."
    )
