"""A folder in, a folder and one table out: a plain model of the files, their runs and the table. No Qt."""

from __future__ import annotations

import csv
import io as text_io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.errors import InputError
from napari_mamba.ui.run.queue.jobs import Job

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Result, RunOptions
    from napari_mamba.volume import Volume

FORMATS = (".nii.gz", ".nrrd", ".mha")
TABLE = "results.csv"
_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class Case:
    """One image of a folder: its name, and the files of its channels."""

    name: str
    paths: tuple[Path, ...]
    series: str = ""


@dataclass
class FolderRun:
    """Runs of a bundle on every image of a folder.

    Parameters
    ----------
    source, target : Path
        Where the images are, and where results go; the second is made where it is missing.
    bundle : Bundle
    options : RunOptions
    suffix : str
        Of the results, one of `FORMATS`.
    overwrite : bool
        Replace results that are there; otherwise their images are left out.
    table : str
        Of bundles that take one beside the images: a CSV with a row for each.
    """

    source: Path
    target: Path
    bundle: Bundle
    options: RunOptions
    suffix: str = ".nii.gz"
    overwrite: bool = False
    table: str = ""
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def jobs(self) -> list[Job]:
        """One job an image; none of them has begun.

        Raises
        ------
        InputError
            If the folder holds no image, or the results would go into it.
        """
        if self.target.resolve() == self.source.resolve():
            raise InputError("the results would lie among the images: choose another folder for them")
        self.target.mkdir(parents=True, exist_ok=True)
        cases = find_cases(self.source, len(self.bundle.channels))
        if not self.overwrite:
            cases = [case for case in cases if not self.output(case).exists() or self.bundle.task == "classification"]
        if not cases:
            raise InputError("every image of the folder has its result there already: tick to replace them")
        return [self._job(case) for case in cases]

    def output(self, case: Case) -> Path:
        """Where the label map or restored image of a case goes."""
        return self.target / f"{case.name}_{self.bundle.name}{self.suffix}"

    def _job(self, case: Case) -> Job:
        return Job(
            title=case.name,
            bundle=self.bundle,
            options=self._options_of(case),
            read=_reader(case),
            finish=self._finish(case),
            group=str(self.target),
            paths=tuple(map(str, case.paths)),
        )

    def _options_of(self, case: Case) -> RunOptions:
        if not self.table:
            return self.options
        from napari_mamba.io import row_of

        return replace(self.options, row=row_of(self.table, case.name))

    def _finish(self, case: Case) -> Callable[[Result, Volume], Result]:
        def finish(result: Result, volume: Volume) -> Result:
            from napari_mamba import io

            if result.labels is not None:
                io.write(result.labels, self.output(case), classes=self.bundle.classes)
            elif result.image is not None:
                io.write(result.image, self.output(case))
            for name, extra in result.extra.items():
                io.write(extra, self.target / f"{case.name}_{self.bundle.name}_{name}{self.suffix}")
            report = json.dumps(result.report(), indent=2, ensure_ascii=False, default=str)
            (self.target / f"{case.name}_{self.bundle.name}.json").write_text(report + "\n", encoding="utf-8")
            self._add_rows(case, result)
            return result

        return finish

    def _add_rows(self, case: Case, result: Result) -> None:
        """The table is written anew after each image, so that it is there whatever happens to the next."""
        with self._lock:
            self.rows[case.name] = table_rows(case.name, result)
            text = table_text([row for rows in self.rows.values() for row in rows])
            beside = self.target / f".{TABLE}.new"
            beside.write_text(text, encoding="utf-8")
            beside.replace(self.target / TABLE)


def find_cases(folder: Path, channels: int) -> list[Case]:
    """The images of a folder: files, each DICOM series, and of bundles of several channels nnU-Net's ``_0000`` files.

    Raises
    ------
    InputError
        If there is none, or a case lacks a channel.
    """
    from napari_mamba import io

    entries = [entry for entry in io.list_series(folder) if not entry.problem]
    if channels == 1:
        return _named([(_stem(entry.paths[0]) if entry.format != "dicom" else entry.title, entry) for entry in entries])
    groups: dict[str, dict[int, Path]] = {}
    for entry in entries:
        stem = _stem(entry.paths[0])
        match = _CHANNEL.search(stem)
        if match:
            groups.setdefault(stem[: match.start()], {})[int(match.group(1))] = entry.paths[0]
    whole = {name: files for name, files in groups.items() if sorted(files) == list(range(channels))}
    if not whole:
        raise InputError(
            f"this model takes {channels} images of each person: name them NAME_0000, NAME_0001 and so on, in the "
            "order of its channels"
        )
    return [Case(name, tuple(files[i] for i in range(channels))) for name, files in sorted(whole.items())]


def _named(found: list[tuple[str, Any]]) -> list[Case]:
    cases: list[Case] = []
    taken: set[str] = set()
    for name, entry in found:
        stem = re.sub(r"[^\w.+-]+", "_", name).strip("_") or "image"
        number, free = 2, stem
        while free in taken:
            free, number = f"{stem}_{number}", number + 1
        taken.add(free)
        cases.append(Case(free, tuple(entry.paths), entry.uid))
    return cases


def _reader(case: Case) -> Callable[[], Volume]:
    def read() -> Volume:
        from napari_mamba import io

        if len(case.paths) == 1:
            return io.read(case.paths[0], series=case.series or None)
        return io.read(list(case.paths))

    return read


def _stem(path: Path) -> str:
    from napari_mamba import io

    suffix = max((s for s in io.SUFFIXES if path.name.lower().endswith(s)), key=len, default=path.suffix)
    return path.name[: -len(suffix)] if suffix else path.name


def table_rows(name: str, result: Result) -> list[dict[str, Any]]:
    """What a result adds to the table: a row a class."""
    if result.scores is not None:
        return [{"image": name, "class": c, "probability": f"{p:.4f}"} for c, p in result.scores.items()]
    return [
        {
            "image": name,
            "class": row.name,
            "voxels": row.voxels,
            "ml": f"{row.ml:.6g}",
            "mean_intensity": "" if row.mean_intensity is None else f"{row.mean_intensity:.6g}",
        }
        for row in result.table
    ] or [{"image": name}]


def table_text(rows: list[dict[str, Any]]) -> str:
    """Rows as comma-separated values under the names of all their columns."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = text_io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()
