"""The command over a folder: rows, failures, going on, two at once."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from napari_mamba import engine, io
from napari_mamba.bundles.bundle import Bundle
from napari_mamba.cohort.places import locked


@pytest.fixture
def runs(monkeypatch):
    """The names of the volumes that the engine ran on."""
    from napari_mamba.cohort import work as run

    ran: list[str] = []
    real = run.run_engine

    def noted(volume, *arguments, **keywords):
        ran.append(volume.name)
        return real(volume, *arguments, **keywords)

    monkeypatch.setattr(run, "run_engine", noted)
    return ran


def test_a_row_says_what_the_files_say(batch, scans, table, tmp_path, tiny_bundle, monkeypatch):
    built = []
    real = Bundle.networks
    monkeypatch.setattr(Bundle, "networks", lambda self: built.append(self.name) or real(self))
    done = batch(scans)
    assert done.code == 0, done.err
    assert built == ["tiny"], "weights are read once"
    rows = table()
    assert list(rows) == ["anna", "bert", "carl"]
    for name, row in rows.items():
        image = scans / f"{name}.nii.gz"
        assert row["status"] == "done"
        assert row["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
        labels = nibabel.load(tmp_path / "out" / row["output"])
        voxel = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
        for index, title in ((1, "anterior"), (2, "posterior")):
            count = np.count_nonzero(np.asarray(labels.dataobj) == index)
            assert float(row[title]) == pytest.approx(count * voxel, rel=1e-4)
    from napari_mamba import bundles

    options = engine.RunOptions(device="cpu", mirror=False)
    alone = engine.run_to_end(io.read(scans / "carl.nii.gz"), bundles.load(tiny_bundle), options).labels
    assert np.array_equal(alone.data[0].T, np.asarray(nibabel.load(tmp_path / "out" / rows["carl"]["output"]).dataobj))


def test_a_damaged_image_is_its_row_alone(batch, scans, table, tmp_path):
    (scans / "bert.nii.gz").write_bytes(b"no image")
    done = batch(scans)
    assert done.code == 4
    rows = table()
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done"]
    assert "bert.nii.gz" in rows["bert"]["error"]
    assert rows["bert"]["anterior"] == ""
    assert not (tmp_path / "out" / "cases" / "bert" / "labels.nii.gz").exists()


def test_rows_are_there_as_cases_end(scans, tiny_bundle, table, tmp_path):
    from napari_mamba import bundles
    from napari_mamba.cohort import CaseEnded, find_cases, run_batch

    options = engine.RunOptions(device="cpu", mirror=False)
    bundle = bundles.kept(bundles.load(tiny_bundle))
    events = run_batch(find_cases([scans], ["T1"]), bundle, tmp_path / "out", options)
    assert [len(table()) for event in events if isinstance(event, CaseEnded)] == [1, 2, 3]


def test_resume_runs_what_is_not_finished_or_has_changed(batch, scans, table, volume, runs):
    (scans / "bert.nii.gz").rename(scans / "bert.away")
    assert batch(scans).code == 0
    (scans / "bert.away").rename(scans / "bert.nii.gz")
    runs.clear()
    before = table()
    again = batch(scans, "--resume")
    assert again.code == 0
    assert "finished before, not run again" in again.out
    assert runs == ["bert"]
    assert table()["anna"] == before["anna"]
    io.write(volume.with_data(volume.data * 2), scans / "carl.nii.gz")
    runs.clear()
    assert batch(scans, "--resume").code == 0
    assert runs == ["carl"]
    runs.clear()
    assert batch(scans, "--resume", "--overlap", "0.25").code == 0
    assert runs == ["anna", "bert", "carl"], "other options are another answer"


@pytest.mark.parametrize("damage", ["output", "record"])
def test_resume_runs_a_case_whose_files_are_gone_or_damaged(batch, scans, tmp_path, runs, damage):
    assert batch(scans).code == 0
    case = tmp_path / "out" / "cases" / "anna"
    if damage == "output":
        (case / "labels.nii.gz").unlink()
    else:
        (case / "report.json").write_text('{"batch": {"status": "done"')
    runs.clear()
    assert batch(scans, "--resume").code == 0
    assert runs == ["anna"]


def test_resume_runs_anew_with_another_bundle(batch, scans, runs, tiny_bundle, tmp_path):
    import shutil

    assert batch(scans).code == 0
    other = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    described = json.loads((other / "bundle.json").read_text())
    described["tile"]["overlap"] = 0.25
    (other / "bundle.json").write_text(json.dumps(described))
    runs.clear()
    assert batch(scans, "--resume", bundle=other).code == 0
    assert len(runs) == 3


def test_what_was_made_stays_while_its_input_is_away(batch, scans, table, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("name,T1\none,scans/anna.nii.gz\n")
    assert batch(listed).code == 0
    (scans / "anna.nii.gz").rename(scans / "away")
    assert batch(listed, "--resume").code == 4
    assert table()["one"]["status"] == "failed"
    assert (tmp_path / "out" / "cases" / "one" / "labels.nii.gz").exists()


def test_a_folder_with_a_batch_is_not_written_unasked(batch, scans, table):
    assert batch(scans / "anna.nii.gz").code == 0
    done = batch(scans / "bert.nii.gz")
    assert done.code == 2
    assert "--resume" in done.err
    assert list(table()) == ["anna"]
    assert batch(scans / "bert.nii.gz", "--overwrite").code == 0


def test_two_batches_into_one_folder_are_refused(batch, scans, tmp_path):
    with locked(tmp_path / "out"):
        done = batch(scans)
    assert done.code == 2
    assert "another batch" in done.err
    assert not (tmp_path / "out" / "table.csv").exists()
    assert batch(scans).code == 0


def test_a_device_that_is_not_there_is_told_before_anything_is_removed(batch, scans, tmp_path):
    assert batch(scans).code == 0
    done = batch(scans, "--resume", "--device", "cuda:77")
    assert done.code == 2
    assert (tmp_path / "out" / "cases" / "anna" / "labels.nii.gz").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_batch_goes_on(batch, scans, table, tmp_path, tiny_bundle, runs):
    """Killed without a chance to tidy up: its lock is gone with it, and what was finished is not run again."""
    code = (
        "import sys, time\n"
        "from napari_mamba.cohort import work as run\n"
        "real = run.run_engine\n"
        "def slow(volume, *rest):\n"
        "    if volume.name == 'bert':\n"
        "        time.sleep(600)\n"
        "    return real(volume, *rest)\n"
        "run.run_engine = slow\n"
        "from napari_mamba.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    line = ["batch", tiny_bundle, scans, "-o", tmp_path / "out", "--no-mirror", "--device", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, line)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "out" / "table.csv").exists() and time.monotonic() < until:
            time.sleep(0.1)
        assert list(table()) == ["anna"]
        assert "another batch" in batch(scans, "--resume").err
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert batch(scans, "--resume").code == 0
    assert runs == ["bert", "carl"]
    assert list(table()) == ["anna", "bert", "carl"]


def test_events_are_those_of_several_cases(batch, scans):
    (scans / "bert.nii.gz").write_bytes(b"no image")
    events = [json.loads(line) for line in batch(scans, "--events", "jsonl").out.splitlines()]
    ends = [(event["event"], event["case"]) for event in events if event["event"] in ("result", "error")]
    assert ends == [("result", 0), ("error", 1), ("result", 2)]
    assert events[-1] == {"version": 2, "event": "end", "done": 2, "failed": 1, "cancelled": 0}
    assert (scans.parent / "out" / "cases" / "anna" / "labels.nii.gz").samefile(
        next(event for event in events if event["event"] == "result")["outputs"]["labels"]
    )


def test_parquet_holds_the_table_where_pyarrow_is(batch, scans, table, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert batch(scans).code == 0
    held = parquet.read_table(tmp_path / "out" / "table.parquet").to_pylist()
    for line, row in zip(held, table().values(), strict=True):
        assert list(line) == list(row)
        assert line["anterior"] == pytest.approx(float(row["anterior"]), rel=1e-4)


def test_a_request_to_stop_keeps_what_is_finished(scans, tiny_bundle, table, tmp_path, batch, runs):
    import threading

    from napari_mamba import bundles
    from napari_mamba.cohort import CaseStarted, find_cases, run_batch

    cancel = threading.Event()
    options = engine.RunOptions(device="cpu", mirror=False)
    events = run_batch(
        find_cases([scans], ["T1"]), bundles.load(tiny_bundle), tmp_path / "out", options, cancel=cancel,
        reading={"series": None, "frame": None, "level": 0, "resample_channels": False},
    )  # fmt: skip
    for event in events:
        if isinstance(event, CaseStarted) and event.name == "bert":
            cancel.set()
    assert list(table()) == ["anna"]
    assert (tmp_path / "out" / "summary.html").exists()
    runs.clear()
    assert batch(scans, "--resume").code == 0
    assert runs == ["bert", "carl"]
