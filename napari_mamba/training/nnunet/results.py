"""Folds that are trained become a bundle with a card; several networks become a table."""

from __future__ import annotations

import csv
import io as text_io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_mamba import bundles, models
from napari_mamba.bundles import BundleSpec, LabelClass
from napari_mamba.bundles.importers.nnunet.v2 import read_results
from napari_mamba.bundles.importers.places import plain_name
from napari_mamba.io.common.atomic import atomic_path
from napari_mamba.training.nnunet.checks import Facts
from napari_mamba.training.nnunet.networks import BASELINES
from napari_mamba.training.nnunet.options import Run
from napari_mamba.training.nnunet.scores import Difference
from napari_mamba.training.scoring.scores import format_summary

NOT_CLINICAL = "Not for clinical use."
TABLE = "comparison"


def can_be_bundle(run: Run) -> bool:
    """Whether the network is one of this package: nnU-Net's own are trained for comparison and stay in its folder."""
    return run.network not in BASELINES


def fold_facts(results: Path, folds: Sequence[int | str]) -> dict[str, Any]:
    """What the trainer noted, over the folds: minutes add up, memory is the most, an epoch the mean."""
    notes = [json.loads((results / f"fold_{fold}" / "napari_mamba_facts.json").read_text()) for fold in folds]
    return {
        **notes[0],
        "folds": [str(fold) for fold in folds],
        "epochs": [note["epochs"] for note in notes],
        "minutes": sum(note["minutes"] for note in notes),
        "seconds_per_epoch": sum(note["seconds_per_epoch"] for note in notes) / len(notes),
        "peak_memory_bytes": max(note["peak_memory_bytes"] for note in notes),
    }


def write_bundle(
    results: Path, output: Path, run: Run, facts: Facts, trained: Mapping[str, Any], score: Mapping[str, Any] | None,
    *, data_name: str, overwrite: bool,
) -> Path:  # fmt: skip
    """The bundle of a results folder, all chosen folds as an ensemble.

    Raises
    ------
    BundleError, OutputError
        If the folds are not complete, or it cannot be written.
    """
    folds = trained["folds"]
    read = read_results(results, list(folds), "checkpoint_final.pth", plain_name(output.stem) or "trained")
    values = list(facts.names.items())
    classes = tuple(LabelClass(value, name) for value, name in values)
    people = len({seen.case.person for seen in facts.seen})
    spec = replace(
        read.spec,
        version="1.0.0",
        title=f"{data_name}: {models.info(run.network).title or run.network}"
        + (f" with {run.mixer}" if run.mixer != "mamba" else ""),
        classes=classes,
        description=f"Trained by nnU-Net v2 on {len(facts.seen)} images of {people} people.",
        data_source=data_name,
        intended_use=f"Research on images like those that it was trained on. {NOT_CLINICAL}",
        metrics={"training": dict(trained), **({"cross_validation": dict(score)} if score else {})},
    )
    text = card(spec, run, facts, trained, score)
    return bundles.save(output, spec, list(read.weights), text, overwrite=overwrite)


def card(spec: BundleSpec, run: Run, facts: Facts, trained: Mapping[str, Any], score: Mapping[str, Any] | None) -> str:
    """Markdown for README.md."""
    folds, epochs = trained["folds"], trained["epochs"]
    lines = [
        f"# {spec.title}", "", f"**{NOT_CLINICAL}** For research on images like those that it was trained on.", "",
        f"{spec.description} Network `{run.network}`, mixer `{run.mixer}`, {trained['parameters'] / 1e6:.2f} million "
        f"parameters; patches of {' x '.join(map(str, trained['patch_size']))} voxels, batches of "
        f"{trained['batch_size']}; fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}, of "
        f"{', '.join(map(str, epochs))} epochs of {trained['iterations_per_epoch']} steps; "
        f"{trained['minutes']:.1f} minutes on {trained['device']}.",
        "", "## Score", "", *_score(folds, facts, score), "", "## Classes", "",
        *(f"- {entry.index} {entry.name}" for entry in spec.classes), "",
        "Input channels, in this order: " + ", ".join(channel.name for channel in spec.channels) + ".", "",
    ]  # fmt: skip
    for warning in facts.warnings:
        lines += [f"Of the data: {warning}.", ""]
    lines += ["## References", "", *(f"- {reference}" for reference in spec.references), ""]
    return "\n".join(lines)


def _score(folds: Sequence[str], facts: Facts, score: Mapping[str, Any] | None) -> list[str]:
    if not score:
        return ["Not measured: it learnt from everybody."]
    whole = len({seen.case.person for seen in facts.seen})
    lines = [
        f"Cross-validation: {score['people']} of {whole} people ({score['images']} images), each by a network that had "
        "not seen this person. Mean ± standard deviation (minimum to maximum) over people.", "",
        "| class | Dice | 95% Hausdorff distance, mm | surface Dice |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    rows = {**score["classes"], "all": score}
    lines += [f"| {name} | {_cell(of['dice'])} | {_cell(of['hausdorff95_mm'], 2)} | {_cell(of['surface_dice'])} |"
              for name, of in rows.items()]  # fmt: skip
    if len(folds) > 1:
        lines += ["", "The bundle is the mean of these networks, which together have seen everybody: its own score on "
                  "new people is not known."]  # fmt: skip
    if score["people"] < 5:
        lines += ["", "So few people say little about others."]
    return lines


def _cell(found: Mapping[str, float], digits: int = 3) -> str:
    return format_summary(found, digits) if found.get("n") else "-"


def comparison_rows(
    trained: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Difference],
    runs: Sequence[Run],
) -> list[dict[str, Any]]:
    """One row a network; differences and p-values are those from the first one."""
    rows = []
    for run in runs:
        facts, score, other = trained[run.name], scores[run.name], differences.get(run.name)
        rows.append({
            "network": run.network, "mixer": "-" if run.network in BASELINES else run.mixer,
            "people": score["people"], "images": score["images"],
            "dice": score["dice"].get("mean"), "dice_sd": score["dice"].get("sd"),
            "hausdorff95_mm": score["hausdorff95_mm"].get("mean"), "surface_dice": score["surface_dice"].get("mean"),
            "missed": score["missed"],
            "dice_difference": other.dice if other else None, "p": other.p if other else None,
            "p_holm": other.p_holm if other else None,
            "minutes": facts["minutes"], "seconds_per_epoch": facts["seconds_per_epoch"],
            "memory_gb": facts["peak_memory_bytes"] / 1e9, "parameters": facts["parameters"], "device": facts["device"],
        })  # fmt: skip
    return rows


def write_table(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """`comparison.csv` and `comparison.md`; returns the second."""
    with atomic_path(folder / f"{TABLE}.csv") as temporary:
        lines = text_io.StringIO()
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
        temporary.write_text(lines.getvalue(), "utf-8")
    path = folder / f"{TABLE}.md"
    with atomic_path(path) as temporary:
        temporary.write_text(table_text(rows), "utf-8")
    return path


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    first = rows[0]
    lines = [
        f"Cross-validation on the same folds; people left out: {first['people']}, images: {first['images']}. p: "
        f"Wilcoxon's signed-rank test over people against {first['network']}, Holm's correction. Missed: classes of "
        f"images with a Dice of 0, mostly without a distance. {NOT_CLINICAL}", "",
        "| network | mixer | Dice | 95% Hausdorff, mm | surface Dice | missed | difference in Dice | p | minutes | "
        "s an epoch | memory, GB | parameters, M |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        cells = [
            row["network"], row["mixer"], f"{_number(row['dice'])} ± {_number(row['dice_sd'])}",
            _number(row["hausdorff95_mm"], ".2f"), _number(row["surface_dice"]), str(row["missed"]),
            _number(row["dice_difference"], "+.3f"), _number(row["p_holm"], ".2g"), f"{row['minutes']:.1f}",
            f"{row['seconds_per_epoch']:.1f}", f"{row['memory_gb']:.1f}", f"{row['parameters'] / 1e6:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None or value != value else format(value, form)
