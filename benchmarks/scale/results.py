"""What the benchmarks of this room measured, in results.json, and the page that is made of it.

    python -m benchmarks.scale.results
    python -m benchmarks.scale.results --merge FILE growth

writes docs/scale_measured.md and its picture anew. Each benchmark does so itself where it is given --write; what one
has written elsewhere, in another copy of results.json, is taken over kind by kind. Rows of growth are kept by their
shape: a measurement of one depth leaves those of others, each with its own machine, date and note.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.scale.growth import exponent

HERE = Path(__file__).parent
FILE = HERE / "results.json"
DOCS = HERE.parents[1] / "docs"
PAGE, PICTURE = DOCS / "scale_measured.md", DOCS / "images" / "scale_growth.svg"
COMMANDS = {
    "growth": "python -m benchmarks.scale.memory",
    "workers": "python -m benchmarks.scale.workers",
    "kills": "python -m benchmarks.scale.kills",
    "monai": "python -m benchmarks.scale.monai_window",
    "device": "python -m benchmarks.scale.device",
}


def machine() -> str:
    """Processor, cores and memory, one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {cores} cores, Python {platform.python_version()}"


def keep(kind: str, name: str, found: Any, note: str = "") -> None:
    """Put what was measured in the place of what was there under this name, and write the page.

    Of growth, in the place of rows of the same shapes alone.
    """
    every = read()
    facts = {"machine": machine(), "date": date.today().isoformat(), "note": note, "found": found}
    _take(every, kind, name, facts)
    _put(every, draws=kind == "growth")


def merge(file: Path, kind: str) -> None:
    """Take over what another copy of results.json holds of a kind, and write the page."""
    every = read()
    for name, facts in json.loads(file.read_text(encoding="utf-8"))[kind].items():
        _take(every, kind, name, facts)
    _put(every, draws=kind == "growth")


def _take(every: dict[str, Any], kind: str, name: str, facts: dict[str, Any]) -> None:
    kept = every.setdefault(kind, {})
    if kind == "growth":
        rows = {tuple(row["shape"]): row for one in (kept.get(name), facts) if one for row in _dated(one)}
        facts = {"found": sorted(rows.values(), key=lambda row: row["gib"])}
    kept[name] = facts


def _dated(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of growth, each with where and when it was measured, and what is to be said of it."""
    common = {key: value for key, value in facts.items() if key != "found"}
    return [{**common, **row} for row in facts["found"]]


def _put(every: dict[str, Any], draws: bool) -> None:
    FILE.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_page(every, draws)


def read() -> dict[str, Any]:
    """All that is kept."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


def _growth(name: str, facts: dict[str, Any]) -> list[str]:
    rows = _dated(facts)
    said = list(dict.fromkeys(_said(row) for row in rows))
    mark = len(said) > 1
    lines = [
        "| volume | GiB | passes of the network | CPU, s | CPU, ns a voxel | peak, GiB | computed | bounded by |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    if mark:
        lines = [lines[0] + " measured |", lines[1] + " :---: |"]
    for row in rows:
        voxels = row["gib"] * 2**30
        lines.append(
            f"| {'×'.join(map(str, row['shape']))} | {row['gib']:.3g} | {row['passes']} | {row['cpu']:.0f} "
            f"| {row['cpu'] / voxels * 1e9:.0f} | {row['peak'] / 2**30:.2f} | {row['share_computed']:.0%} "
            f"| {row['bounded_by']} |" + (f" {said.index(_said(row)) + 1} |" if mark else "")
        )
    if mark:
        lines += ["", *(f"{number}. {one}" for number, one in enumerate(said, 1))]
    if len(rows) > 1:
        sizes = [row["gib"] for row in rows]
        times, passes = exponent(sizes, [row["cpu"] for row in rows]), exponent(sizes, [row["passes"] for row in rows])
        lines += ["", f"CPU time grows with the voxels to the power of {times:.3f}, passes to that of {passes:.3f}."]
    return lines


def _said(facts: dict[str, Any]) -> str:
    """Where and when something was measured, and its note."""
    said = f"{facts['machine']}, {facts['date']}."
    return said + (f" {facts['note']}" if facts["note"] else "")


def _head(name: str, facts: dict[str, Any]) -> str:
    """The line above a table; rows that were measured on several days say so themselves."""
    said = {_said(row) for row in _dated(facts)} if "machine" not in facts else {_said(facts)}
    return f"**{name}**." + (f" {said.pop()}" if len(said) == 1 else "")


def _workers(name: str, facts: dict[str, Any]) -> list[str]:
    found = facts["found"]
    return [
        "| workers | seconds |",
        "| ---: | ---: |",
        *(f"| {count} | {found[count]:.1f} |" for count in ("1", "2")),
        "",
        f"Two are {found['1'] / found['2']:.2f} times as quick as one.",
    ]


def _kills(name: str, facts: dict[str, Any]) -> list[str]:
    found = facts["found"]
    equal = sum(row["equal"] for row in found)
    return [f"{equal} of {len(found)} runs gave the labels and the table of the undisturbed one.", "", *(
        f"{number}. {'; '.join([*row['killed'], *([row['error']] if 'error' in row else [])])}: "
        f"{'equal' if row['equal'] else 'NOT EQUAL'}"
        for number, row in enumerate(found, 1)
    )]  # fmt: skip


def _monai(name: str, facts: dict[str, Any]) -> list[str]:
    found = facts["found"]
    lines = ["| | wall, s | CPU, s | peak, GiB |", "| --- | ---: | ---: | ---: |"]
    for who, one in found.items():
        lines.append(f"| {who} | {one['seconds']:.0f} | {one['cpu']:.0f} | {one['peak'] / 2**30:.2f} |")
    return lines


def _device(name: str, facts: dict[str, Any]) -> list[str]:
    found = facts["found"]
    busy = "–" if found["busy"] is None else f"{found['busy']:.0%}"
    before = found["whole"] - found["from_first_tile"]
    return [
        f"| {found['device']} | |",
        "| --- | ---: |",
        f"| seconds from the first tile to the last byte | {found['from_first_tile']:.1f} |",
        f"| share of them for which the device computed passes of the network | {found['share_computed']:.0%} |",
        f"| the same as the driver sees it, everything on the device counted | {busy} |",
        f"| bounded by | {found['bounded_by']} |",
        f"| seconds before, of which the passes over the image are a part | {before:.1f} |",
    ]


SECTIONS = {
    "growth": ("Memory and time while the volume grows", _growth),
    "workers": ("Two workers against one", _workers),
    "kills": ("Workers killed and the scheduler restarted in mid-run", _kills),
    "monai": ("Beside MONAI's sliding window", _monai),
    "device": ("What a GPU waits for", _device),
}


def page(every: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Large volumes: what was measured",
        "",
        "Written by the benchmarks themselves, from `benchmarks/scale/results.json`; [how it works](scale.md) is",
        "another page. CPU time is all threads' together. Peaks are of resident memory, as the system tells them,",
        "PyTorch and the libraries included. Weights are random: what is measured is what a run costs.",
    ]
    if "growth" in every:
        lines += ["", f"![CPU time and peak of memory over the size of the volume](images/{PICTURE.name})"]
    for kind, (title, table) in SECTIONS.items():
        if kind not in every:
            continue
        lines += ["", f"## {title}", "", f"    {COMMANDS[kind]}"]
        for name, facts in every[kind].items():
            lines += ["", _head(name, facts), "", *table(name, facts)]
    return "\n".join(lines) + "\n"


def draw(growth: dict[str, Any]) -> None:
    """The curves: CPU time and peak over the size."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scale"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for name, facts in growth.items():
        rows = facts["found"]
        sizes = [row["gib"] for row in rows]
        left.loglog(sizes, [row["cpu"] for row in rows], "o-", label=name)
        right.semilogx(sizes, [row["peak"] / 2**30 for row in rows], "o-", label=name)
    left.set(xlabel="GiB of uint8", ylabel="CPU time, s")
    right.set(xlabel="GiB of uint8", ylabel="peak of memory, GiB", ylim=(0, 2.2))
    right.axhline(2, color="0.6", linestyle=":")
    left.legend(fontsize=8, frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    pyplot.close(figure)


def write_page(every: dict[str, Any], draws: bool = True) -> None:
    """The page, and its picture where that is asked for, which takes Matplotlib."""
    if "growth" in every and draws:
        draw(every["growth"])
    PAGE.parent.mkdir(parents=True, exist_ok=True)  # where only a part of the repository is
    PAGE.write_text(page(every), encoding="utf-8")
    print(f"wrote {PAGE}")


def main() -> None:
    """Write the page and its picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merge", nargs=2, action="append", default=[], metavar=("FILE", "KIND"))
    for file, kind in parser.parse_args().merge:
        merge(Path(file), kind)
    write_page(read())


if __name__ == "__main__":
    main()
