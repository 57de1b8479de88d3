"""Writing under bad circumstances: killed, asked to stop, two at once, nowhere to write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.cli.runs import outputs as cli_outputs
from napari_mamba.cli.runs.outputs import Outputs
from napari_mamba.cli.runs.running import cancel_on_signals
from napari_mamba.errors import OutputError
from napari_mamba.io import detection
from napari_mamba.io.common import atomic as _atomic
from napari_mamba.volume import Volume

SMALL = Volume(np.zeros((1, 3, 4, 5), np.uint8))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    script = """
        import sys, time
        from napari_mamba import io
        from napari_mamba.io.formats import nifti
        import numpy as np
        from napari_mamba.volume import Volume

        def slow(volume, path, classes):
            path.write_bytes(b"half")
            print("writing", flush=True)
            time.sleep(600)  # until it is killed

        nifti.write = slow
        io.write(Volume(np.zeros((1, 2, 2, 2), np.uint8)), sys.argv[1])
    """
    path = tmp_path / "labels.nii.gz"
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(path)], stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"writing\n"
    left = [item.name for item in tmp_path.iterdir()]
    assert len(left) == 1
    io.write(SMALL, tmp_path / "labels.nii.gz")  # it is still running: its folder stays
    assert left[0] in [item.name for item in tmp_path.iterdir()]
    writer.kill()
    writer.wait()
    writer.stdout.close()
    assert left[0] in [item.name for item in tmp_path.iterdir()]
    io.write(SMALL, path)
    assert [item.name for item in tmp_path.iterdir()] == ["labels.nii.gz"]


def test_other_programs_folders_are_left_alone(tmp_path):
    others = [".labels.nii.gz.abcdef12-99999999-x", ".labels.nii.gz.tmp", f"{_atomic._prefix(Path('b.nii'))}99999999-x"]
    for name in others:
        (tmp_path / name).mkdir()
    io.write(SMALL, tmp_path / "labels.nii.gz")
    assert {item.name for item in tmp_path.iterdir()} == {*others, "labels.nii.gz"}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".nrrd", ".mha", ".tif", ".ome.tif", ".zarr"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), MemoryError(), ValueError("odd\ntwo lines")])
def test_a_fault_in_any_writer_leaves_the_old_file(tmp_path, monkeypatch, suffix, fault):
    path = io.write(SMALL, tmp_path / f"a{suffix}")
    module = detection.module_of(detection.WRITERS[detection.suffix_of(path, detection.WRITERS)])

    def fail(volume, place, classes=()):
        (place.mkdir() if suffix == ".zarr" else place.write_bytes(b"half"))
        raise fault

    monkeypatch.setattr(module, "write", fail)
    with pytest.raises(OutputError) as caught:
        io.write(SMALL, path)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert io.read(path).shape == (3, 4, 5)
    assert [item.name for item in tmp_path.iterdir()] == [f"a{suffix}"]


class TestBeforeTheRun:
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("no/a.nii", "does not exist"),
            ("a.docx", "no suffix"),
            ("there.nii", "already there"),
            ("d.nii", "folder"),
            ("é" * 126 + ".nii", "too long"),
        ],
    )
    def test_what_cannot_be_written_is_refused(self, tmp_path, name, says):
        io.write(SMALL, tmp_path / "there.nii")
        (tmp_path / "d.nii").mkdir()
        with pytest.raises(OutputError, match=says):
            io.check_writable(tmp_path / name)
        io.check_writable(tmp_path / "there.nii", overwrite=True)
        io.check_writable(tmp_path / "new.nii")
        assert {item.name for item in tmp_path.iterdir()} == {"there.nii", "d.nii"}

    def test_a_name_that_no_disk_takes(self, tmp_path):
        with pytest.raises(OutputError, match="the name is too long: choose a shorter one"):
            io.write(SMALL, tmp_path / ("é" * 126 + ".nii"))

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder where not even root may write: /proc")
    def test_a_folder_where_nobody_may_write(self):
        with pytest.raises(OutputError, match="cannot be written"):
            io.check_writable("/proc/self/a.nii")


def test_a_file_that_appears_during_a_run_is_left_and_the_result_is_kept_beside(tmp_path):
    asked = Outputs(main=tmp_path / "a.nii.gz", report=tmp_path / "a.json")
    assert asked.without_replacing(overwrite=False) == (asked, [])
    (tmp_path / "a.nii.gz").write_bytes(b"another run's")
    (tmp_path / "a-2.nii.gz").write_bytes(b"a third's")
    moved, told = asked.without_replacing(overwrite=False)
    assert (moved.main, moved.report) == (tmp_path / "a-3.nii.gz", tmp_path / "a.json")
    assert len(told) == 1
    assert "a-3.nii.gz" in told[0]
    assert asked.without_replacing(overwrite=True) == (asked, [])
    assert cli_outputs._free_name(tmp_path / "b.csv").name == "b-2.csv"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGTERM")
def test_a_request_to_stop_while_writing_finishes_the_file(tmp_path, monkeypatch):
    from napari_mamba.io.formats import nifti

    began, whole = threading.Event(), nifti.write

    def slow(volume, path, classes=()):
        began.set()
        time.sleep(0.3)
        whole(volume, path, classes)

    monkeypatch.setattr(nifti, "write", slow)
    with cancel_on_signals() as cancel:
        threading.Thread(target=lambda: (began.wait(), os.kill(os.getpid(), signal.SIGTERM))).start()
        io.write(SMALL, tmp_path / "a.nii")
        assert cancel.is_set()
    assert io.read(tmp_path / "a.nii").shape == (3, 4, 5)


@pytest.mark.skipif(sys.platform == "win32", reason="closes a stream as a POSIX shell does")
def test_a_command_whose_stderr_is_closed_still_works():
    code = "from napari_mamba.cli.reporting.progress import reporter; print(type(reporter(None)).__name__)"
    command = f'"{sys.executable}" -c "{code}" 2>&-'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "Lines")
