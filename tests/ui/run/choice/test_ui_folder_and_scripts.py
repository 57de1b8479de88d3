"""A folder in and a folder and a table out; a run as a script and as a command, each carried out."""

from __future__ import annotations

import csv
import shlex

import numpy as np
import pytest
from napari.components import ViewerModel
from typer.testing import CliRunner

from napari_mamba import bundles, io
from napari_mamba.engine import Result, RunOptions
from napari_mamba.errors import InputError
from napari_mamba.ui.files.readers import read_layers
from napari_mamba.ui.run.choice.folder import FolderRun, find_cases
from napari_mamba.ui.run.choice.layer_jobs import layer_job
from napari_mamba.ui.run.choice.options import Options
from napari_mamba.ui.run.choice.scripts import as_command, as_script
from napari_mamba.ui.run.process.outcome import outcome_of
from napari_mamba.volume import Volume


@pytest.fixture
def scans(tmp_path):
    """Two images in a folder."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for seed, name in enumerate(("ann", "bob")):
        values = np.random.default_rng(seed).random((1, 12, 14, 16)).astype(np.float32)
        io.write(Volume(values, np.diag([1.0, 1.2, 1.1, 1])[[2, 1, 0, 3]]), folder / f"{name}.nii.gz")
    return folder


def run(job) -> Result:
    """A job as the worker runs it."""
    volume = job.read()
    events = outcome_of(volume, job.bundle, job.options, job.cancel)
    outcome = None
    while outcome is None:
        try:
            next(events)
        except StopIteration as end:
            outcome = end.value
    assert not outcome.error, outcome.error
    return job.finish(outcome.result, volume) if job.finish else outcome.result


def test_a_folder_becomes_a_folder_and_one_table(tiny, scans, tmp_path):
    target = tmp_path / "results"
    jobs = FolderRun(scans, target, tiny, RunOptions(device="cpu")).jobs()
    assert [job.title for job in jobs] == ["ann", "bob"]
    results = [run(job) for job in jobs]
    for name, result in zip(("ann", "bob"), results, strict=True):
        back = io.read_labels(target / f"{name}_tiny.nii.gz")
        np.testing.assert_array_equal(back.volume.data, result.labels.data)
        assert [entry.name for entry in back.classes] == ["Anterior", "Posterior"]
        assert (target / f"{name}_tiny.json").is_file()
    with open(target / "results.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["image"], row["class"]) for row in rows] == [
        (name, label) for name in ("ann", "bob") for label in ("Anterior", "Posterior")
    ]
    assert [int(row["voxels"]) for row in rows] == [one.voxels for result in results for one in result.table]


def test_what_is_there_is_left_out_or_replaced(tiny, scans, tmp_path):
    target = tmp_path / "results"
    target.mkdir()
    (target / "ann_tiny.nii.gz").write_bytes(b"there")
    options = RunOptions(device="cpu")
    assert [job.title for job in FolderRun(scans, target, tiny, options).jobs()] == ["bob"]
    assert len(FolderRun(scans, target, tiny, options, overwrite=True).jobs()) == 2
    (target / "bob_tiny.nii.gz").write_bytes(b"there")
    with pytest.raises(InputError, match="tick to replace them"):
        FolderRun(scans, target, tiny, options).jobs()
    with pytest.raises(InputError, match="choose another folder"):
        FolderRun(scans, scans, tiny, options).jobs()


def test_channels_go_together_by_nnunets_numbers(scans):
    for name in ("ann", "bob"):
        for channel in range(2):
            (scans / f"{name}_{channel:04d}.nii.gz").write_bytes((scans / f"{name}.nii.gz").read_bytes())
    (scans / "bob_0001.nii.gz").unlink()
    (case,) = find_cases(scans, 2)
    assert (case.name, [path.name for path in case.paths]) == ("ann", ["ann_0000.nii.gz", "ann_0001.nii.gz"])
    with pytest.raises(InputError, match="NAME_0000"):
        find_cases(scans, 3)


@pytest.fixture
def job(tiny, scans):
    """A run on a layer that came from a file, with options of its own."""
    viewer = ViewerModel()
    data, keywords, _ = read_layers(str(scans / "ann.nii.gz"))[0]
    layer = viewer.add_image(data, **keywords)
    options = Options(device="cpu", tile="40", overlap="0.25", uncertainty=True)
    return layer_job(viewer, [layer], tiny, options)[0]


def test_the_script_is_exactly_this_run(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(as_script(job), names)
    assert names["volume"].shape == job.read().shape
    result = names["result"]
    here = run(job)
    np.testing.assert_array_equal(result.labels.data, here.labels.data)
    assert result.provenance["options"] == here.provenance["options"]
    assert (tmp_path / "ann_tiny.nii.gz").is_file()


def test_the_command_is_exactly_this_run(job, tmp_path, monkeypatch):
    from napari_mamba.cli.app import app

    monkeypatch.chdir(tmp_path)
    command = as_command(job)
    program, *arguments = shlex.split(command)
    assert program == "napari-mamba"
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    here = run(job)
    np.testing.assert_array_equal(io.read("ann_tiny.nii.gz").data, here.labels.data)
    assert (tmp_path / "ann_tiny_uncertainty.nii.gz").is_file()


def test_layers_of_no_file_are_a_script_for_napari_and_no_command(tiny):
    viewer = ViewerModel()
    layer = viewer.add_image(np.random.default_rng(0).random((12, 14, 16)), name="drawn")
    job, _ = layer_job(viewer, [layer], tiny, Options(device="cpu"))
    script = as_script(job, ["drawn"])
    assert "run_on(viewer, 'drawn', 'tiny', device='cpu')" in script
    compile(script, "script", "exec")
    with pytest.raises(InputError, match="save the layer first"):
        as_command(job)


def test_region_volume_and_strength_are_told_too(tiny, scans):
    denoiser = bundles.load("mr-denoise")
    viewer = ViewerModel()
    film = viewer.add_image(
        np.random.default_rng(0).random((3, 12, 14, 16)),
        name="film",
        metadata={"napari_mamba": {"path": "film.nii.gz"}},
    )
    job, _ = layer_job(viewer, [film], denoiser, Options(strength="50", clip=False), frame=2)
    command = as_command(job)
    assert "--frame 2" in command
    assert "--strength 50" in command
    assert "--no-clip" in command
    assert "io.read('film.nii.gz', frame=2)" in as_script(job)
    assert "strength=0.5" in as_script(job)
    drawn = viewer.add_labels(np.pad(np.ones((6, 6, 6), np.uint8), 3), name="here")
    layer = viewer.add_image(np.random.default_rng(0).random((12, 12, 12)), name="scan")
    job, _ = layer_job(viewer, [layer], denoiser, Options(region=drawn.name, strength="50"))
    script = as_script(job, ["scan"])
    assert "region='here'" in script
    assert "strength=0.5" in script
    two = bundles.load("tiny-two")
    other = viewer.add_image(np.random.default_rng(1).random((12, 12, 12)), name="other")
    layer.metadata["napari_mamba"] = {"path": "scan.nii.gz"}
    job, _ = layer_job(viewer, [layer, other], two, Options())
    with pytest.raises(InputError, match="save the layer first"):
        as_command(job)


def test_a_bundle_of_another_place_is_named_by_it(job, tmp_path, make_bundle):
    path = make_bundle(tmp_path / "elsewhere")
    job.bundle = bundles.load(path)
    assert str(path) in as_command(job)
