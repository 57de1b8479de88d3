"""Networks that nnU-Net trained on one fold, beside each other on the people that the fold left out.

    napari-mamba train pairs.csv --network umamba_bot --network resenc --folds 0 --minutes 7 -o hippocampus
    python -m benchmarks.bundles.nnunet_folds pairs.csv RESULTS/nnUNetTrainer_resenc__* RESULTS/nnUNetTrainer_umamba*

Each folder holds `fold_0/validation` with one label map a case, and the trainer's `napari_mamba_facts.json`.
`pairs.csv` has the columns image, label and person. The first folder is what the others are compared with.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from napari_mamba.training.nnunet.scores import CaseScore, compare, score_folder, summarise

TOLERANCE_MM = 1.0
COLUMNS = ("Dice", "95% Hausdorff, mm", "surface Dice (1 mm)")


def main() -> None:
    """Print the table; with --json keep what it was made of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    people, truth = _people(chosen.pairs)
    scores: dict[str, list[CaseScore]] = {}
    rows: dict[str, Any] = {}
    for folder in chosen.results:
        fold = folder / f"fold_{chosen.fold}"
        classes = json.loads((folder / "dataset.json").read_text())["labels"]
        names = {int(value): name for name, value in classes.items() if int(value) > 0}
        name = folder.name.split("__")[0].removeprefix("nnUNetTrainer_")
        scores[name] = list(score_folder(fold / "validation", truth, people, names, TOLERANCE_MM))
        rows[name] = {
            "score": summarise(scores[name]),
            "trained": json.loads((fold / "napari_mamba_facts.json").read_text()),
        }
    for name, difference in compare(scores).items() if len(scores) > 1 else ():
        rows[name]["difference"] = vars(difference)
    print("\n".join(table(rows)))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _people(pairs: Path) -> tuple[dict[str, str], Path]:
    """Each case's person, and the folder of the label maps."""
    with pairs.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    folders = {(pairs.parent / row["label"]).parent for row in listed}
    if len(folders) != 1:
        raise SystemExit(f"{pairs} has label maps in {len(folders)} folders: put them into one")
    return {Path(row["label"]).name.split(".")[0]: row["person"] for row in listed}, folders.pop()


def table(rows: dict[str, Any]) -> list[str]:
    """Markdown: mean ± SD over people, what training took, and the paired difference from the first."""
    lines = [
        f"| network | {' | '.join(COLUMNS)} | beside the first: Dice, p "
        "| parameters | minutes, epochs | batch | GPU memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        score, trained, difference = row["score"], row["trained"], row.get("difference")
        measured = [
            f"{score[measure]['mean']:.3f} ± {score[measure]['sd']:.3f}"
            for measure in ("dice", "hausdorff95_mm", "surface_dice")
        ]
        beside = f"{difference['dice']:+.4f}, {difference['p']:.1g}" if difference else ""
        lines.append(
            f"| `{name}` | {' | '.join(measured)} | {beside} | {trained['parameters'] / 1e6:.1f} million "
            f"| {trained['minutes']:.1f}, {trained['epochs']} | {trained['batch_size']} "
            f"| {trained['peak_memory_bytes'] / 1e9:.1f} GB |"
        )
    some = next(iter(rows.values()))["score"]
    people = f"{some['images']} images of {some['people']} people that the fold left out"
    return [*lines, "", f"{people}; mean ± SD over people."]


if __name__ == "__main__":
    main()
