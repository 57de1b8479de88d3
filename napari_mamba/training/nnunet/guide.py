"""From labelled images to a bundle through nnU-Net: one generator, for every front end."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mamba.bundles.writer import check_destination
from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.paths import expanded
from napari_mamba.training.nnunet import checks, folds, options, raw, results, scores
from napari_mamba.training.nnunet.child import process
from napari_mamba.training.nnunet.child.settings import Settings
from napari_mamba.training.nnunet.data import find_dataset
from napari_mamba.training.nnunet.devices import check_gpus, device_of
from napari_mamba.training.nnunet.networks import check_channels
from napari_mamba.training.nnunet.options import Run, Trained, TrainOptions, TrainProgress

_SEEN, _PLANNED = 0.02, 0.06
"""Shares of the whole that are over when images are checked, and preprocessed."""


def work_folder(output: Path) -> Path:
    """Where nnU-Net's folders, its log and what resumes lie: beside the output."""
    return output.parent / f"{output.name}.training"


def train(
    dataset: str | Path, output: str | Path, chosen: TrainOptions, cancel: threading.Event | None = None
) -> Generator[TrainProgress, None, Trained]:
    """Train networks on labelled images by nnU-Net v2, and make bundles of them.

    Parameters
    ----------
    dataset : path
        See `napari_mamba.training.nnunet.data.LAYOUTS`.
    output : path
        The bundle to make, a folder or a .zip; of several networks a folder, with a bundle each and the comparison.
    chosen : TrainOptions
    cancel : threading.Event, optional
        Set it to stop: a checkpoint is written, and `resume` goes on later.

    Yields
    ------
    TrainProgress

    Returns
    -------
    Trained

    Raises
    ------
    InputError, OutputError
        Before training, with a sentence about what is wrong.
    OutOfMemoryError, OutputError, RunError
        If nnU-Net fails. What was trained stays, and `resume` goes on.

    Examples
    --------
    >>> for event in train("Task04_Hippocampus", "hippocampus", TrainOptions(("umamba_bot",))):  # doctest: +SKIP
    ...     print(event.stage, event.overall, event.facts)
    """
    guide = _Guide(expanded(dataset), expanded(output), chosen, cancel or threading.Event())
    process.require_nnunet()
    guide.check_output()
    check_gpus(chosen.device, chosen.gpus, chosen.batch_size)
    options.check_mixers(chosen.runs)
    try:
        return (yield from guide.events())
    except OSError as error:
        reason = error.strerror or "no space, or no such place"
        raise OutputError(
            f"the disk refused ({reason}): free some space, or choose a folder that you may write to"
        ) from error


@dataclass
class _Guide:
    dataset: Path
    output: Path
    chosen: TrainOptions
    cancel: threading.Event
    warnings: list[str] = field(default_factory=list)
    title: str = ""

    @property
    def work(self) -> Path:
        return work_folder(self.output)

    @property
    def name(self) -> str:
        """The data set's, for people."""
        return self.dataset.resolve().name.split(".")[0]

    @property
    def processes(self) -> int:
        return self.chosen.processes or min(8, os.cpu_count() or 1)

    # --- before ------------------------------------------------------------------------------------------------------

    def check_output(self) -> None:
        """Refuse an output that is there, or a stopped training that would be lost or mixed with another."""
        several, chosen = len(self.chosen.runs) > 1, self.chosen
        if several and self.output.suffix == ".zip":
            raise OutputError(f"{self.output}: several networks make a folder of bundles: give a name without .zip")
        if not any(results.can_be_bundle(run) for run in chosen.runs) and not several:
            raise InputError(f"{chosen.runs[0].name} is nnU-Net's own network, for comparison: name a second --network")
        if not several:
            check_destination(self.output, chosen.overwrite or chosen.resume)
        elif self.output.exists() and not (chosen.overwrite or chosen.resume):
            raise OutputError(f"{self.output} is already there: choose another name, or add --overwrite")
        remembered = self.work / "options.json"
        if not remembered.is_file():
            return
        if chosen.resume:
            before = json.loads(remembered.read_text())
            now = json.loads(json.dumps({"dataset": str(self.dataset.resolve()), **chosen.remembered()}))
            if changed := sorted(key for key in now if before.get(key) != now[key]):
                raise InputError(
                    f"{self.work} was begun with another {changed[0].replace('_', ' ')}: resume with the same options, "
                    "or choose another output"
                )
        elif chosen.overwrite:
            shutil.rmtree(self.work)
        else:
            raise OutputError(
                f"{self.work} holds a stopped training: go on with --resume, or begin anew with --overwrite"
            )

    def events(self) -> Generator[TrainProgress, None, Trained]:
        dataset = find_dataset(self.dataset, self.chosen.channels, self.chosen.persons)
        self.title = dataset.title or self.name
        seen = []
        looking = checks.look_at(dataset)
        for number, one in enumerate(looking, start=1):
            if self.cancel.is_set():
                return Trained({}, cancelled=True)
            seen.append(one)
            share = number / len(dataset.cases)
            yield TrainProgress("checking", number, len(dataset.cases), message=one.case.name, overall=_SEEN * share)
        facts = checks.judge(dataset, seen)
        for run in self.chosen.runs:
            check_channels(run.network, len(facts.channel_names))
        people = {one.case.name: one.case.person for one in facts.seen}
        splits = self._splits(people)
        numbers = folds.chosen_folds(self.chosen.folds, len(splits))
        checks.check_disk(self.work, facts, len(self.chosen.runs), len(numbers))
        self.warnings = [*facts.warnings, *checks.describe_people(facts.seen)]
        for warning in self.warnings:
            yield TrainProgress("checking", len(seen), len(seen), message=warning, warning=True, overall=_SEEN)
        yield from self._lay_out(facts, splits)
        if not (yield from self._plan(facts)):
            return Trained({}, cancelled=True, warnings=tuple(self.warnings))
        for run in self.chosen.runs:
            for fold in numbers:
                if (yield from self._train(run, fold, facts.dims, numbers)):
                    return Trained({}, cancelled=True, warnings=tuple(self.warnings))
        return (yield from self._finish(facts, people, numbers))

    def _splits(self, people: dict[str, str]) -> list[folds.Split]:
        if self.chosen.splits is not None:
            return folds.read_splits(expanded(self.chosen.splits), people)
        return folds.split_folds(people)

    def _lay_out(self, facts: checks.Facts, splits: list[folds.Split]) -> Generator[TrainProgress, None, None]:
        self.work.mkdir(parents=True, exist_ok=True)
        remembered = {"dataset": str(self.dataset.resolve()), **self.chosen.remembered()}
        (self.work / "options.json").write_text(json.dumps(remembered, indent=2))
        for number, case in enumerate(raw.write_raw(facts, self.work / "raw", self.name), start=1):
            yield TrainProgress("planning", number, len(facts.seen), message=case, overall=_SEEN)
        raw.write_splits(splits, self.work / "preprocessed", self.name)

    # --- nnU-Net -----------------------------------------------------------------------------------------------------

    def _plan(self, facts: checks.Facts) -> Generator[TrainProgress, None, bool]:
        """Whether it is planned and preprocessed."""
        wanted: dict[tuple[str, str], set[str]] = {}
        for run in self.chosen.runs:
            wanted.setdefault(run.planner, set()).add(self._configuration(run, facts.dims))
        planners = [
            {"planner": planner, "plans": plans, "configurations": sorted(which), "gpu_memory": self.chosen.gpu_memory}
            for (planner, plans), which in wanted.items()
        ]
        marker = self.work / "planned.json"
        if marker.is_file() and json.loads(marker.read_text()) == planners:
            return True
        yield TrainProgress("planning", 0, 1, message="nnU-Net plans and preprocesses", overall=_SEEN)
        job = {"action": "plan", "dataset": raw.NUMBER, "planners": planners, "processes": self.processes}
        if (yield from self._told(job, Settings(), lambda line: None)):
            return False
        marker.write_text(json.dumps(planners))
        yield TrainProgress("planning", 1, 1, overall=_PLANNED)
        return True

    def _configuration(self, run: Run, dims: int) -> str:
        return self.chosen.configuration or run.configuration(dims)

    def _results(self, run: Run, dims: int) -> Path:
        folder = f"{run.trainer}__{run.planner[1]}__{self._configuration(run, dims)}"
        return self.work / "results" / raw.dataset_folder(self.name) / folder

    def _train(
        self, run: Run, fold: int | str, dims: int, numbers: Sequence[int | str]
    ) -> Generator[TrainProgress, None, bool]:
        """Train and validate one fold, if it is not done; returns whether it was stopped."""
        place = self._results(run, dims) / f"fold_{fold}"
        if (place / "validation" / "summary.json").is_file():
            return False
        done = self.chosen.runs.index(run) * len(numbers) + list(numbers).index(fold)
        every = len(self.chosen.runs) * len(numbers)

        def event(line: dict[str, Any]) -> TrainProgress:
            share = _share(line, self.chosen.minutes)
            overall = _PLANNED + (0.98 - _PLANNED) * (done + share) / every
            stage = "validating" if line["what"] == "validating" else "training"
            return TrainProgress(stage, done, every, overall=overall, network=run.name, fold=str(fold), facts=line)

        trained = (place / "checkpoint_final.pth").is_file()
        job = {
            "action": "train", "dataset": raw.dataset_folder(self.name), "fold": fold, "trainer": run.trainer,
            "configuration": self._configuration(run, dims), "plans": run.planner[1], "gpus": self.chosen.gpus,
            "device": device_of(self.chosen.device), "threads": os.cpu_count() or 1,
            "resume": not trained and any(place.glob("checkpoint_*.pth")), "validate": trained,
        }  # fmt: skip
        chosen = self.chosen
        settings = Settings(
            num_epochs=chosen.epochs, num_iterations_per_epoch=chosen.iterations, minutes=chosen.minutes,
            batch_size=chosen.batch_size,
            num_val_iterations_per_epoch=chosen.validation_iterations, parent=os.getpid(),
            events=str((self.work / "events.jsonl").resolve()), stop=str((self.work / "stop").resolve()),
        )  # fmt: skip
        return (yield from self._told(job, settings, event))

    def _told(self, job: dict[str, Any], settings: Settings, event: Any) -> Generator[TrainProgress, None, bool]:
        running = process.run_job(job, settings, self.work, self.cancel, self.processes)
        while True:
            try:
                line = next(running)
            except StopIteration as end:
                return bool(end.value)
            if (told := event(line)) is not None:
                yield told

    # --- after -------------------------------------------------------------------------------------------------------

    def _finish(
        self, facts: checks.Facts, people: dict[str, str], numbers: Sequence[int | str]
    ) -> Generator[TrainProgress, None, Trained]:
        runs, measured, summaries = self.chosen.runs, {}, {}
        mapping = raw.network_values(facts)
        names = {mapping[value]: name for value, name in facts.names.items() if value}
        ignore = None if facts.ignore is None else mapping[facts.ignore]
        truth = self.work / "preprocessed" / raw.dataset_folder(self.name) / "gt_segmentations"
        trained = {run.name: results.fold_facts(self._results(run, facts.dims), numbers) for run in runs}
        if numbers != ("all",):
            for place, run in enumerate(runs):
                yield TrainProgress("measuring", place, len(runs), overall=0.98, network=run.name)
                measured[run.name] = [
                    score
                    for fold in numbers
                    for score in scores.score_folder(
                        self._results(run, facts.dims) / f"fold_{fold}" / "validation", truth, people, names,
                        self.chosen.tolerance_mm, ignore,
                    )
                ]  # fmt: skip
                summaries[run.name] = scores.summarise(measured[run.name])
        yield TrainProgress("writing", 0, len(runs), overall=0.99)
        made = {}
        for run in runs:
            if not results.can_be_bundle(run):
                continue
            output = self.output if len(runs) == 1 else self.output / run.name
            made[run.name] = results.write_bundle(
                self._results(run, facts.dims), output, run, facts, trained[run.name], summaries.get(run.name),
                data_name=self.title, overwrite=self.chosen.overwrite or self.chosen.resume,
            )  # fmt: skip
        table = None
        if len(runs) > 1 and measured:
            rows = results.comparison_rows(trained, summaries, scores.compare(measured), runs)
            table = results.write_table(rows, self.output)
        yield TrainProgress("writing", len(runs), len(runs), overall=1.0)
        return Trained(made, False, summaries, table, tuple(self.warnings))


def _share(line: dict[str, Any], minutes: float | None) -> float:
    """How much of a fold is over, of which the last twentieth is validation."""
    if line["what"] == "validating":
        return 0.95
    if minutes is not None:
        return 0.95 * min(1.0, line["minutes"] / minutes)
    steps = line["iterations"] if line["what"] == "epoch" else line["iteration"]
    return 0.95 * min(1.0, (line["epoch"] + steps / line["iterations"]) / line["epochs"])
