"""The files a run leaves: looked at before it starts, written whole after it ends."""

from __future__ import annotations

import csv
import io as text_io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba import io
from napari_mamba.cli.reporting.events import strict
from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common.atomic import check_length
from napari_mamba.io.stores import is_address
from napari_mamba.slides.files import is_bag

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import ClassRow, Result
    from napari_mamba.volume import Volume

FEATURE_SUFFIXES = (".h5", ".csv", ".npz")
"""Of what encoders write."""


@dataclass(frozen=True)
class Outputs:
    """Where each thing goes; None: not asked for.

    `main` is the label map, the restored image, or a slide's attention; `probabilities`, `uncertainty` and `residual`
    are images too, `report` is JSON, `table` CSV, `overlay` PNG.
    """

    main: Path | None = None
    probabilities: Path | None = None
    uncertainty: Path | None = None
    residual: Path | None = None
    report: Path | None = None
    table: Path | None = None
    overlay: Path | None = None

    def chosen(self) -> dict[str, Path]:
        """Those that were asked for, in the order in which they are written."""
        return {name: path for name, path in vars(self).items() if path is not None}

    def check(self, inputs: Sequence[Path], *, overwrite: bool, resume: bool = False) -> None:
        """Raise what would otherwise be found out after the run; with `resume` the image may be there, unfinished.

        Raises
        ------
        OutputError
            If a suffix is unknown, a folder missing or not writable, a file already there, or two outputs are one.
        InputError
            If an output would replace an input.
        """
        taken: dict[Path, str] = {}
        bags = any(is_bag(given) for given in inputs)
        for name, path in self.chosen().items():
            _check_suffix(name, path, bags)
            if is_address(path):  # known when it is opened
                continue
            check_place(path, overwrite=overwrite or (resume and name == "main"))
            place = real_path(path)
            for given in inputs:
                if place == real_path(given) or (given.suffix == ".zarr" and real_path(given) in place.parents):
                    raise InputError(f"{path} is the input itself: choose another name for the output")
            if place in taken:
                raise OutputError(f"{path} is named for two outputs ({taken[place]} and {name}): choose another name")
            taken[place] = name

    def check_task(self, bundle: Bundle) -> None:
        """Raise `InputError` if this bundle does not give what was asked for, or gives what has no place."""
        from napari_mamba.engine.checks import not_for_images

        if bundle.task == "classification":
            for name in ("main", "probabilities", "residual", "overlay", "table"):
                if getattr(self, name):
                    flag = "--output" if name == "main" else f"--{name}"
                    raise InputError(f"{bundle.name} gives scores, not an image: leave {flag} out, or use --report")
            return
        if bundle.task == "slide":
            if odd := [name for name in self.chosen() if name not in ("main", "report")]:
                raise InputError(f"{bundle.name} gives scores and attention, no {odd[0]}: leave --{odd[0]} out")
            return
        if bundle.task == "features":
            if odd := [name for name in self.chosen() if name not in ("main", "report")]:
                raise InputError(f"{bundle.name} gives features, no {odd[0]}: leave --{odd[0]} out")
            if self.main is None or not self.main.name.lower().endswith(FEATURE_SUFFIXES):
                raise InputError(f"{bundle.name} gives features: name a file with -o that ends in .h5, .csv or .npz")
            return
        if self.main is not None and self.main.name.lower().endswith(FEATURE_SUFFIXES):
            raise OutputError(f"{self.main} is no place for an image: {bundle.name} gives one, choose another suffix")
        if bundle.task != "segmentation" and self._is_dicom():
            raise OutputError(f"{self.main} cannot be written: DICOM is written for label maps alone, choose .nii.gz")
        if bundle.task in ("dose", "registration"):
            raise InputError(not_for_images(bundle))
        if self.main is None:
            raise InputError(f"{bundle.name} gives an image: say where to put it with -o FILE")
        images = ("probabilities", "uncertainty", "overlay", "table")
        unsuited = {"segmentation": ("residual",), "restoration": images, "fusion": (*images, "residual")}
        unsuited |= {"diffusion": (*images, "residual"), "prediction": (*images, "residual")}
        for name in unsuited[bundle.task]:
            if (
                name == "uncertainty" and bundle.task == "restoration" and bundle.tile.mirror_axes
            ):  # then it is the spread over mirrored copies
                continue
            if getattr(self, name):
                raise InputError(f"{bundle.name} is for {bundle.task} and gives no {name}: leave --{name} out")

    def _is_dicom(self) -> bool:
        return self.main is not None and self.main.name.lower().endswith(io.LABEL_SUFFIXES)

    def check_image(self, volume: Volume) -> None:
        """Raise, before the run, what its label map could not be written for: DICOM SEG needs a DICOM series."""
        if self.main is not None and self._is_dicom():
            from napari_mamba.io.formats.dicom import segmentation

            segmentation.sources_of(volume, self.main)

    def without_replacing(self, *, overwrite: bool) -> tuple[Outputs, list[str]]:
        """The outputs under names that are free, and a sentence for each that is another than was asked for.

        `check` found the places free, but a run takes minutes, and another program may have written there since.
        """
        if overwrite:
            return self, []
        moved, told = {}, []
        for name, path in self.chosen().items():
            if os.path.lexists(path):
                moved[name] = free = _free_name(path)
                told.append(f"{path} was written by another program during this run and is left as it is: see {free}.")
        return replace(self, **moved), told

    def write(self, result: Result, volume: Volume, bundle: Bundle, report: dict[str, Any]) -> None:
        """Write them all, each beside and then renamed; the image first, since it took the longest to make.

        Raises
        ------
        OutputError
            If one cannot be written. Those before it are there, and whole.
        """
        writers: dict[str, Callable[[Path], Any]] = {
            "main": lambda path: _write_image(result, bundle, path),
            "report": lambda path: write_text(
                path, json.dumps(strict(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            ),
            "table": lambda path: write_text(path, table_csv(result.table)),
            "overlay": lambda path: _write_overlay(result, volume, bundle, path),
        }
        for name, path in self.chosen().items():
            if name in writers:
                writers[name](path)
            else:
                if bundle.task == "classification" and name == "uncertainty":
                    name = "activation_map"
                    if name not in result.extra:
                        raise OutputError(f"{path} was not written: {bundle.name} has no class activation map")
                io.write(result.extra[name], path)


def _write_image(result: Result, bundle: Bundle, path: Path) -> None:
    if result.labels is not None:
        io.write(result.labels, path, classes=bundle.classes)
    elif result.image is not None:
        io.write(result.image, path)


def _write_overlay(result: Result, volume: Volume, bundle: Bundle, path: Path) -> None:
    from napari_mamba.io.preview import overlay_png

    if result.labels is not None:
        overlay_png(volume, result.labels, bundle.classes, path)


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not there; raises `OutputError`."""
    from napari_mamba.io.common.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def table_csv(rows: Sequence[ClassRow]) -> str:
    """The table of classes as comma-separated values, one line a class."""
    lines = text_io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["index", "name", "voxels", "ml", "mean_intensity", "code", "laterality"])
    for row in rows:
        mean = "" if row.mean_intensity is None else f"{row.mean_intensity:.6g}"
        writer.writerow([row.index, row.name, row.voxels, f"{row.ml:.6g}", mean, row.code, row.laterality])
    return lines.getvalue()


def _free_name(path: Path) -> Path:
    """The name with a number before its suffix, such as "labels-2.nii.gz", where nothing is yet."""
    stem, dot, suffix = path.name.partition(".")
    number = 2
    while os.path.lexists(path.with_name(f"{stem}-{number}{dot}{suffix}")):
        number += 1
    return path.with_name(f"{stem}-{number}{dot}{suffix}")


def _check_suffix(name: str, path: Path, bags: bool = False) -> None:
    images: tuple[str, ...] = io.WRITE_SUFFIXES
    if bags:  # of a slide: its patches' attention
        images = (".csv", ".h5", ".geojson")
    elif name == "main":
        images = (*images, *io.LABEL_SUFFIXES)
    suffixes = {"report": (".json",), "table": (".csv",), "overlay": (".png",)}.get(name, images)
    features = FEATURE_SUFFIXES if name == "main" else ()  # of encoders: which bundle it is, is not known yet
    if not path.name.lower().endswith((*suffixes, *features)) or path.name.lower() in suffixes:
        if bags and suffixes is images and path.name.lower().endswith(io.WRITE_SUFFIXES):
            raise OutputError(
                f"{path.name} is an image's name, and the input is a bag of features: give an image, or choose one of "
                f"{', '.join(images)}"
            )
        raise OutputError(f"{path} has no suffix of a format to write: choose one of {', '.join(suffixes)}")


def real_path(path: Path) -> Path:
    """Where a path leads; unlike `Path.resolve`, also of links that lead in a circle."""
    return Path(os.path.realpath(path))


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if nothing can be put there. Tries it: permissions alone do not tell (read-only disks)."""
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist, create it first")
    if os.path.lexists(path):
        if not overwrite and os.path.lexists(f"{path}.unfinished"):
            raise OutputError(
                f"{path} is the unfinished result of a run: go on with --resume, or begin anew with --overwrite"
            )
        if not overwrite:
            raise OutputError(f"{path} is already there: add --overwrite to replace it, or choose another name")
        if path.is_dir() and path.suffix != ".zarr":
            raise OutputError(f"{path} cannot be written: a folder of that name is there, choose another name")
    check_length(path)
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): choose a folder where you may write, on a disk with space"
        ) from error
