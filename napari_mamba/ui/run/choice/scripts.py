"""What is chosen in the window, as a script and as a command: exactly this run. No Qt."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.engine import RunOptions
from napari_mamba.errors import InputError

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.run.queue.jobs import Job

FLAGS = {
    "device": "--device", "precision": "--precision", "tile": "--tile", "overlap": "--overlap",
    "batch_size": "--batch-size", "axis": "--axis", "spacing": "--spacing", "replace_nonfinite": "--replace-nonfinite",
    "slice_profile": "--slice-profile", "seed": "--seed",
}  # fmt: skip
MAPS = ("uncertainty", "probabilities", "residual")


def as_script(job: Job, layers: list[str] | None = None) -> str:
    """A Python script of a run: from files where the layers came from files, else from the viewer's layers.

    Parameters
    ----------
    job : Job
    layers : list of str, optional
        Names of the layers, for a script that is run in napari.
    """
    if not job.paths or job.finish is not None:
        name = repr((layers or [job.title])[0]) if len(layers or [1]) == 1 else repr(layers)
        given = {**_of_layer(_changed(job.options), job), **({"region": job.region} if job.region else {})}
        if job.level:
            given["level"] = job.level
        if given.pop("row", None) is not None:
            given |= {"table": job.table[0], "table_row": job.table[1]}
        arguments = "".join(f", {key}={value!r}" for key, value in given.items())
        return (
            "# In napari's console: the run goes on in the background.\n"
            "from napari_mamba.ui import run_on\n\n"
            f"run = run_on(viewer, {name}, {_reference(job.bundle)!r}{arguments})\n"
        )
    arguments = ", ".join(f"{key}={value!r}" for key, value in _changed(job.options).items())
    source = repr(job.paths[0]) if len(job.paths) == 1 else repr(list(job.paths))
    source += "" if job.frame is None else f", frame={job.frame}"
    source += f", level={job.level}" if job.level else ""
    source += ', colour="channels"' if _in_colour(job) else ""
    lines = [
        "from napari_mamba import bundles, engine, io",
        "",
        f"volume = io.read({source})",
        f"bundle = bundles.load({_reference(job.bundle)!r})",
        f"result = engine.run_to_end(volume, bundle, engine.RunOptions({arguments}))",
    ]
    if job.bundle.task == "segmentation":
        lines.append(f"io.write(result.labels, {_output(job)!r}, classes=bundle.classes)")
        lines.append("print(*result.table, sep='\\n')")
    elif job.bundle.task != "classification":
        lines.append(f"io.write(result.image, {_output(job)!r})")
    else:
        lines.append("print(result.scores)")
    return "\n".join(lines) + "\n"


def as_command(job: Job) -> str:
    """The command of a run.

    Raises
    ------
    InputError
        If its layers came from no file, so that a command cannot read them.
    """
    if not job.paths:
        raise InputError(f"'{job.title}' is in no file that a command could read: save the layer first")
    if job.finish is not None:
        raise InputError("a command runs on whole images: choose the whole image as the region, or copy a script")
    parts = ["napari-mamba", "run", _reference(job.bundle), *job.paths]
    if job.bundle.task != "classification":
        parts += ["-o", _output(job)]
    changed = _changed(job.options)
    if job.frame is not None:
        parts += ["--frame", str(job.frame)]
    if job.level:
        parts += ["--level", str(job.level)]
    for name, flag in FLAGS.items():
        if name in changed:
            value = changed[name]
            parts += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    if "strength" in changed:
        parts += ["--strength", f"{100 * changed['strength']:g}"]
    for name in ("deterministic", "clip"):
        if name in changed:
            parts.append(f"--{name}" if changed[name] else f"--no-{name}")
    if "mirror" in changed:
        parts.append("--mirror" if changed["mirror"] else "--no-mirror")
    if job.table[0]:
        parts += ["--row", job.table[0], "--row-of", job.table[1]]
    for name in MAPS:
        if changed.get(name):
            parts += [f"--{name}", _output(job, f"_{name}")]
    return shlex.join(parts)


def _changed(options: RunOptions) -> dict[str, Any]:
    """The options that differ from the bundle's own."""
    plain = RunOptions()
    values = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    return {name: value for name, value in values.items() if value != getattr(plain, name)}


def _of_layer(changed: dict[str, Any], job: Job) -> dict[str, Any]:
    """Options of a run with their axes as those of the layer, which `run_on` takes."""
    order = list(job.place.order) if job.place is not None else [0, 1, 2]
    if changed.get("axis") in ("z", "y", "x"):
        changed["axis"] = "zyx"[order.index("zyx".index(changed["axis"]))]
    if isinstance(changed.get("spacing"), tuple):
        changed["spacing"] = tuple(changed["spacing"][axis] for axis in order)
    return changed


def _reference(bundle: Bundle) -> str:
    """The bundle's name where it can be found by it, else its place."""
    from napari_mamba.bundles import available

    known = next((one for one in available() if one.name == bundle.name), None)
    return bundle.name if known is not None and known.path == bundle.path else str(bundle.path)


def _in_colour(job: Job) -> bool:
    """Whether one colour picture is all channels of a model of colours."""
    from napari_mamba.engine.checks import takes_rgb

    return len(job.paths) == 1 and job.colours and takes_rgb(job.bundle)


def _output(job: Job, what: str = "") -> str:
    stem = Path(job.paths[0]).name.split(".", 1)[0]
    return f"{stem}_{job.bundle.name}{what}.nii.gz"
