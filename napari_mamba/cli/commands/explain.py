"""`napari-mamba explain`: maps of how a network went through an image, as files."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs)

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np

    from napari_mamba.cli.reporting.progress import Reporter
    from napari_mamba.explain.maps import Explained
    from napari_mamba.volume import Volume

FORMATS = {"nifti": ".nii.gz", "ome-zarr": ".ome.zarr"}
MOST_POINTS = 5000
"""Of a path's curve: more, and 3D Slicer crawls. The table beside it has them all."""


def explain(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a bundle, or its folder or zip.")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="The image; several files are channels.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the maps.")],
    what: Annotated[
        str, typer.Option(help="Maps, with commas between: attention,state,relevance; --list shows all.")
    ] = "state",
    voxel: Annotated[
        Optional[str], typer.Option(metavar="Z,Y,X", help="The voxel that is asked about; the middle if not given.")
    ] = None,
    world: Annotated[
        Optional[str], typer.Option(metavar="X,Y,Z", help="The same as a point in mm (RAS) instead.")
    ] = None,
    layer: Annotated[Optional[str], typer.Option(metavar="NAME", help="The scanning layer; --list shows all.")] = None,
    direction: Annotated[Optional[int], typer.Option(help="One of its paths, from 1; all if not given.")] = None,
    target: Annotated[
        Optional[str], typer.Option("--class", metavar="NAME|INDEX", help="The class whose answer is explained.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Explain the answer of the whole image, not that of the tile at the voxel.")
    ] = False,
    regions: Annotated[
        Optional[Path],
        typer.Option(metavar="LABELS", help="For knockout, on the image's grid: what 1 passes on to 2 is cut."),
    ] = None,
    member: Annotated[int, typer.Option(help="Which network of an ensemble, from 1.")] = 1,
    format: Annotated[str, typer.Option(help="nifti or ome-zarr.")] = "nifti",
    show: Annotated[bool, typer.Option("--list", help="List the maps and the network's layers, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace maps that are there.")] = False,
    events: Annotated[Optional[str], typer.Option(metavar="jsonl", help="JSON lines on stdout.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> int:
    """Show how a model went through an image: scan order, states, attention, relevance. Not for clinical use."""
    from napari_mamba.cli.reporting.events import JsonLines
    from napari_mamba.cli.reporting.failures import quiet_libraries
    from napari_mamba.cli.reporting.progress import reporter

    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    if format not in FORMATS:
        raise InputError(f"--format {format} is not known: choose one of {', '.join(FORMATS)}")
    if voxel is not None and world is not None:
        raise InputError("--voxel and --world both say where: give one of them")
    places = {"voxel": numbers(voxel, "--voxel", whole=True), "world": numbers(world, "--world")}
    for path in [*inputs, *([regions] if regions else [])]:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the name")
    report = reporter(events)
    try:
        with quiet_libraries():
            chosen: dict[str, Any] = {
                "layer": layer,
                "target": target,
                "direction": None if direction is None else direction - 1,
            }
            chosen |= {"whole": whole, "regions": regions}
            names = [name.strip() for name in what.split(",") if name.strip()]
            how = {"member": member - 1, "device": device, "suffix": FORMATS[format], "overwrite": overwrite}
            return _explain(bundle, inputs, output, names, places, chosen, how, show, report)
    except BaseException as error:
        if isinstance(report, JsonLines) and not isinstance(error, BrokenPipeError):
            report.failure(error)
        raise
    finally:
        report.close()


def _explain(
    name: str,
    inputs: list[Path],
    output: Path,
    what: list[str],
    where: dict[str, Any],
    chosen: dict[str, Any],
    how: dict[str, Any],
    show: bool,
    report: Reporter,
) -> int:
    from napari_mamba.cli.reporting.events import JsonLines
    from napari_mamba.cli.reporting.failures import CANCELLED, DONE
    from napari_mamba.cli.runs.running import cancel_on_signals
    from napari_mamba.engine import Progress, RunOptions
    from napari_mamba.engine.progress.overall import Overall, shares_of

    overall = Overall(shares=shares_of(what))

    def tell(event: Progress) -> None:
        overall.add(event)
        report.progress(event, overall)

    began = perf_counter()
    with cancel_on_signals() as cancel:
        tell(Progress("loading", 0, 1))
        from napari_mamba import bundles, io
        from napari_mamba.explain.maps import MAPS, explaining
        from napari_mamba.explain.recorded.opening import subject_of

        unknown = [one for one in what if one not in MAPS]
        if unknown:
            raise InputError(f"there is no map {unknown[0]!r}: choose among {', '.join(MAPS)}")
        volume = io.read(list(inputs))
        bundle = bundles.load(name)
        subject = subject_of(volume, bundle, RunOptions(device=how["device"]), how["member"])
        facts: dict[str, Any] = {"cancelled": False, "inputs": [str(path) for path in inputs], "outputs": {}}
        if show and isinstance(report, JsonLines):
            report.emit("list", **listed(subject))
            report.result({**facts, "warnings": subject.warnings}, [], "")
            return DONE
        if show:
            report.close()
            print(listing(subject))
            return DONE
        voxel = where["voxel"] if where["world"] is None else subject.voxel_of(where["world"])
        if chosen["regions"] is not None:
            chosen["regions"] = regions_of(chosen["regions"], volume)
        _make_folder(output, overwrite=how["overwrite"])
        run = explaining(subject, what, voxel, cancel=cancel, **chosen)
        while True:
            try:
                tell(next(run))
            except StopIteration as end:
                found: Explained = end.value
                break
        if found.cancelled:
            report.cancelled()
            return CANCELLED
        tell(Progress("writing", 0, 1))
        paths = write(found, subject, output, how["suffix"], how["overwrite"])
    for sentence in found.sentences:
        report.warning(sentence)
    if isinstance(report, JsonLines):
        for kind, one in paths.items():
            report.emit("map", name=kind, path=str(one), kind=_kind(one))
    options = {"what": what, "member": how["member"] + 1, "device": how["device"], **chosen}
    facts |= {"outputs": {key: str(path) for key, path in paths.items()}, "facts": found.facts}
    facts |= {"warnings": found.sentences, "provenance": provenance(bundle, options)}
    report.result({**facts, "seconds": round(perf_counter() - began, 3)}, [], "")
    return DONE


def regions_of(path: Path, volume: Volume) -> np.ndarray:
    """Regions of a label file on the image's grid, (Z, Y, X)."""
    import numpy as np

    from napari_mamba import io

    labels = io.read_labels(path).volume
    same = labels.shape == volume.shape and np.allclose(labels.affine, volume.affine, atol=1e-3)
    if not same:
        raise InputError(f"{path} does not lie on the image's grid: draw the regions on the image itself")
    return np.asarray(labels.data)[0]


def write(found: Explained, subject: Any, output: Path, suffix: str, overwrite: bool) -> dict[str, Path]:
    """Write maps, paths (a table, and a curve for 3D Slicer), curves, the facts, and a figure; returns the files."""
    from napari_mamba import io
    from napari_mamba.cli.runs.outputs import write_text
    from napari_mamba.explain.figure import figure
    from napari_mamba.io.common.atomic import atomic_path

    texts: dict[str, tuple[Path, str]] = {}
    for name, points in found.paths.items():
        texts[name] = (output / f"{_file(name)}.csv", path_csv(points))
        texts[f"{name} curve"] = (output / f"{_file(name)}.mrk.json", slicer_curve(points, name))
    for name, curve in found.curves.items():
        texts[f"{name} curve"] = (output / f"{_file(name)}_curve.csv", curve_csv(curve))
    texts["facts"] = (output / "facts.json", json.dumps(found.facts, indent=2, ensure_ascii=False) + "\n")
    images = {name: output / f"{_file(name)}{suffix}" for name in found.volumes}
    picture = output / "figure.png"
    for path in [*images.values(), picture, *(path for path, _ in texts.values())]:
        if path.exists() and not overwrite:
            raise OutputError(f"{path} is already there: add --overwrite to replace it, or choose another folder")
    for name, path in images.items():
        io.write(found.volumes[name], path)
    for path, text in texts.values():
        write_text(path, text)
    written = {**images, **{name: path for name, (path, _) in texts.items()}}
    if found.volumes or found.curves:
        sheet = figure(subject.volume, found.volumes, tuple(found.facts["voxel"]), found.curves)
        with atomic_path(picture) as temporary:
            sheet.save(temporary, format="PNG")
        written["figure"] = picture
    return written


def path_csv(points: np.ndarray) -> str:
    """A way through the tokens, a line a step: its number and its place (x, y, z, RAS, mm)."""
    lines = [f"{i},{x:.3f},{y:.3f},{z:.3f}" for i, (x, y, z) in enumerate(points)]
    return "\n".join(["step,x,y,z", *lines]) + "\n"


def curve_csv(curve: dict[str, np.ndarray]) -> str:
    """Numbers along a path as columns."""
    columns: dict[str, np.ndarray] = {name: values for name, values in curve.items() if name != "at"}
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(columns), *(",".join(f"{v:g}" for v in row) for row in rows)]) + "\n"


def slicer_curve(points: np.ndarray, name: str) -> str:
    """A way as 3D Slicer's markups curve, thinned evenly to `MOST_POINTS`."""
    import numpy as np

    kept = points[np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).round().astype(int))]
    controls = [{"position": [round(float(v), 4) for v in point]} for point in kept]
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
        "markups-schema-v1.0.3.json#"
    )
    markup: dict[str, Any] = {
        "type": "Curve",
        "coordinateSystem": "RAS",
        "coordinateUnits": "mm",
        "controlPoints": controls,
    }
    markup |= {"display": {"pointLabelsVisibility": False, "propertiesLabelVisibility": False, "glyphScale": 0.5}}
    return json.dumps({"@schema": schema, "markups": [{**markup, "name": name}]}) + "\n"


def provenance(bundle: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Where maps come from: the bundle and its checksum, the version, and what was asked for."""
    from napari_mamba import __version__

    source = {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256}
    return {"napari_mamba": __version__, "bundle": source, "options": options}


def listed(subject: Any) -> dict[str, list[dict[str, Any]]]:
    """The maps that can be made, and the layers that can be asked about, for programs."""
    from napari_mamba.explain.maps import MAPS

    maps = [{"name": name, "title": one.title, "says": one.says, "of": one.of} for name, one in MAPS.items()]
    layers = [
        {"name": layer.name, "kind": layer.kind, "grid": None if layer.grid is None else list(layer.grid)}
        | {"tokens": layer.tokens, "channels": layer.channels, "states": layer.states, "paths": layer.directions}
        for layer in subject.layers
    ]
    return {"maps": maps, "layers": layers}


def listing(subject: Any) -> str:
    """The same, for people."""
    from napari_mamba.cli.reporting.tables import aligned

    found = listed(subject)
    maps = aligned(["map", "of a", "says"], [[one["name"], one["of"], one["says"]] for one in found["maps"]])
    numbers = ("tokens", "channels", "states", "paths")
    rows = [
        [layer["name"], layer["kind"], "channels" if layer["grid"] is None else " x ".join(map(str, layer["grid"]))]
        + [str(layer[name]) for name in numbers]
        for layer in found["layers"]
    ]
    return maps + "\n\n" + aligned(["layer", "kind", "grid", *numbers], rows)


def numbers(text: str | None, option: str, whole: bool = False) -> tuple[Any, ...] | None:
    """Three numbers with commas between.

    Examples
    --------
    >>> numbers("1,2,3", "--voxel", whole=True), numbers("1.5,2,-3", "--world"), numbers(None, "--world")
    ((1, 2, 3), (1.5, 2.0, -3.0), None)
    """
    if text is None:
        return None
    try:
        found = tuple((int if whole else float)(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 3:
        order = "z,y,x" if whole else "x,y,z in mm"
        raise InputError(f"{option} {text} is no place: give three numbers, {order}")
    return found


def _kind(path: Path) -> str:
    return {".json": "curve" if path.name.endswith(".mrk.json") else "facts", ".csv": "table", ".png": "figure"}.get(
        path.suffix, "volume"
    )


def _file(name: str) -> str:
    return name.replace(" ", "_")


def _make_folder(folder: Path, *, overwrite: bool) -> None:
    """Make it; raise at once what would be found out after minutes: that maps are there, or none can be written."""
    from napari_mamba.io.common.atomic import check_place

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): choose another one") from error
    facts = folder / "facts.json"
    if facts.exists() and not overwrite:
        raise OutputError(f"{facts} is already there: add --overwrite to replace it, or choose another folder")
    check_place(facts, overwrite=True)
