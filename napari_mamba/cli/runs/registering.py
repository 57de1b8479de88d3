"""What `register` does: read two images, bring them together, write what was asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import JsonLines, strict
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, quiet_libraries
from napari_mamba.cli.reporting.progress import Reporter, reporter
from napari_mamba.cli.runs.outputs import check_place, real_path, write_text
from napari_mamba.cli.runs.running import cancel_on_signals
from napari_mamba.errors import ChoiceError, InputError, OutputError

if TYPE_CHECKING:
    from napari_mamba.engine import Progress
    from napari_mamba.engine.registering.options import Registered, RegistrationOptions
    from napari_mamba.io import LabelMap
    from napari_mamba.volume import Volume

NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class RegisterOutputs:
    """Where each thing goes; None: not asked for."""

    moved: Path
    transform: Path | None = None
    displacement: Path | None = None
    jacobian: Path | None = None
    labels: Path | None = None
    report: Path | None = None

    def chosen(self) -> dict[str, Path]:
        return {name: path for name, path in vars(self).items() if path is not None}

    def check(self, inputs: list[Path], *, replace: bool) -> None:
        """Raise what would otherwise be found out after minutes."""
        from napari_mamba.io import SUFFIXES

        endings = {"transform": (".h5", ".tfm"), "displacement": NIFTI, "report": (".json",)}
        taken: list[Path] = [real_path(path) for path in inputs]
        for name, path in self.chosen().items():
            allowed = endings.get(name, tuple(SUFFIXES))
            if not path.name.lower().endswith(allowed):
                raise OutputError(f"{path} cannot hold the {name}: give it one of the endings {', '.join(allowed)}")
            if real_path(path) in taken:
                raise OutputError(f"{path} is named twice, as an input or another output: choose another name")
            check_place(path, overwrite=replace)
            taken.append(real_path(path))


def register_files(
    fixed: Path,
    moving: Path,
    outputs: RegisterOutputs,
    options: RegistrationOptions,
    *,
    labels: Path | None,
    bundle: str,
    events: str | None,
    replace: bool,
) -> int:
    """Carry the command out; returns the exit code, raises what went wrong after telling the reader of the events."""
    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    if (labels is None) != (outputs.labels is None):
        raise InputError("labels to carry along need both --labels FILE and --labels-output FILE")
    inputs = [path for path in (fixed, moving, labels) if path is not None]
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the name")
    outputs.check(inputs, replace=replace)
    report = reporter(events)
    try:
        with quiet_libraries():
            return _register(fixed, moving, labels, bundle, outputs, options, report)
    except BaseException as error:
        if isinstance(report, JsonLines) and not isinstance(error, BrokenPipeError):
            report.failure(error)
        raise
    finally:
        report.close()


def _register(
    fixed_path: Path,
    moving_path: Path,
    labels_path: Path | None,
    bundle: str,
    outputs: RegisterOutputs,
    options: RegistrationOptions,
    report: Reporter,
) -> int:
    from napari_mamba.engine import Progress
    from napari_mamba.engine.progress.overall import REGISTERING, Overall

    began, overall = perf_counter(), Overall(shares=REGISTERING)

    def tell(event: Progress) -> None:
        overall.add(event)
        report.progress(event, overall)

    with cancel_on_signals() as cancel:
        tell(Progress("loading", 0, 1))
        from napari_mamba.engine.progress.to_end import to_end
        from napari_mamba.engine.registering.networks import network_for
        from napari_mamba.engine.registering.register import register

        fixed, moving = _volume(fixed_path), _volume(moving_path)
        carried = None if labels_path is None else _labels_of(labels_path, moving)
        chosen = network_for(bundle, fixed, moving)
        found = to_end(register(fixed, moving, chosen, options, cancel), tell)
        if found.cancelled:
            report.cancelled()
            print("cancelled: nothing was written", file=sys.stderr)
            return CANCELLED
        tell(Progress("writing", 0, 1))
        for warning in found.warnings:
            report.warning(warning)
        facts = _facts(found, fixed_path, moving_path, outputs)
        _write(found, fixed, carried, outputs, facts)
        facts["seconds"] = round(perf_counter() - began, 3)
        report.result(facts, [], "ml")
    return DONE


def _volume(path: Path) -> Volume:
    """An image that has to be one volume; raises `InputError` where it is a film."""
    from napari_mamba import io

    try:
        return io.read(path)
    except ChoiceError as error:
        raise InputError(
            f"{path} holds several images, and one 3D image is registered onto one: save the right one by itself"
        ) from error


def _labels_of(path: Path, moving: Volume) -> LabelMap:
    """Labels on the moving image's grid; raises `InputError` where they lie on another."""
    import numpy as np

    from napari_mamba import io

    labels = io.read_labels(path)
    if labels.volume.shape != moving.shape or not np.allclose(labels.volume.affine, moving.affine, atol=1e-3):
        raise InputError(f"{path} lies on another grid than the moving image: give labels that were drawn on it")
    return labels


def _write(
    found: Registered, fixed: Volume, carried: LabelMap | None, outputs: RegisterOutputs, facts: dict[str, Any]
) -> None:
    from napari_mamba import io
    from napari_mamba.registration import transforms

    assert found.moved is not None
    io.write(found.moved, outputs.moved)
    if outputs.transform is not None:
        _whole(outputs.transform, lambda path: transforms.write(found.transform, path))
    if outputs.displacement is not None:
        grid = (fixed.affine, fixed.shape)
        _whole(outputs.displacement, lambda path: transforms.write_displacement(found.transform, path, *grid))
    if outputs.jacobian is not None and found.jacobian is not None:
        io.write(found.jacobian, outputs.jacobian)
    if outputs.labels is not None and carried is not None:
        io.write(found.carry(carried.volume, fixed), outputs.labels, classes=carried.classes)
    if outputs.report is not None:
        write_text(outputs.report, json.dumps(strict(facts), indent=2) + "\n")


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, and move it there when it is whole."""
    from napari_mamba.io.common.atomic import atomic_path

    with atomic_path(path) as temporary:
        write(temporary)


def _facts(found: Registered, fixed: Path, moving: Path, outputs: RegisterOutputs) -> dict[str, Any]:
    return {
        "cancelled": False,
        "inputs": [str(fixed), str(moving)],
        "outputs": {name: str(path) for name, path in outputs.chosen().items()},
        "registration": found.facts,
        "affine": found.transform.affine.tolist(),
        "warnings": list(found.warnings),
    }
