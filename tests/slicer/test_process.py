"""The runner and its process: cancelling, crashes, noise, odd paths, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from napari_mamba import io
from napari_mamba.volume import Volume

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
RUNS = int(os.environ.get("NAPARI_MAMBA_RUNS_IN_A_ROW", "2"))


@pytest.fixture
def place(python, environment, tiny_bundle):
    from MambaImagingLib.compute.places import LocalPlace

    return LocalPlace(python, {**environment, "NAPARI_MAMBA_BUNDLES": str(tiny_bundle.parent)})


def job(folder, count=1, size=(40, 40, 40), bundle="tiny"):
    from MambaImagingLib.compute.jobs import Case, Job, Options

    data = np.random.default_rng(0).normal(100, 10, size).astype(np.float32)
    path = io.write(Volume(data[None]), folder / "in.nrrd")
    cases = tuple(Case(f"case {n}", (path,), {"output": folder / f"{n}.seg.nrrd"}) for n in range(count))
    return Job(bundle, cases, Options(device="cpu"), folder)


def follow(runner, until=lambda runner: False, seconds=120):
    """Poll to the end, or until something is so; the outcome, or None."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        outcome = runner.poll()
        if outcome is not None:
            return outcome
        if until(runner):
            return None
        time.sleep(0.01)
    raise AssertionError("waited too long")


def tree(pid):
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(processes):
    found = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


STAGES = ["", "loading", "checking", "preparing", "warming up", "network", "restoring", "measuring", "writing"]
ENDS = {"", "preparing", "network", "writing"}  # each takes a process: the others with -m heavy


@pytest.mark.parametrize("stage", [pytest.param(one, marks=() if one in ENDS else pytest.mark.heavy) for one in STAGES])
def test_cancelling_in_every_stage(place, tmp_path, stage):
    """As soon as the stage, or one after it, was told: some are over in a moment."""
    late = STAGES.index(stage) > STAGES.index("network")
    runner = place.runner()
    runner.start(job(tmp_path, size=(20, 20, 20) if late else (112, 112, 112)))
    follow(runner, lambda one: STAGES.index(one.follower.stage) >= STAGES.index(stage))
    processes = tree(runner.pid)
    began = time.monotonic()
    runner.cancel()
    outcome = follow(runner)
    assert outcome.cancelled
    assert not outcome.done
    assert time.monotonic() - began < 2
    psutil.wait_procs(processes, 1)
    assert not alive(processes)
    assert {path.name for path in tmp_path.iterdir()} - ({"0.seg.nrrd"} if late else set()) == {"cases.json", "in.nrrd"}


@posix
def test_a_killed_process_is_told_with_its_last_words(place, tmp_path):
    runner = place.runner()
    runner.start(job(tmp_path, size=(112, 112, 112)))
    follow(runner, lambda one: one.follower.stage == "network")
    os.kill(runner.pid, signal.SIGKILL)
    outcome = follow(runner)
    assert "was killed" in outcome.error
    assert "memory" in outcome.error
    assert not outcome.done


def test_no_leftover_after_many_runs(place, tmp_path):
    """2 here; `NAPARI_MAMBA_RUNS_IN_A_ROW=50` for more."""
    me = psutil.Process()
    others = {child.pid for child in me.children(recursive=True)}  # of tests before this one
    before, threads = len(me.open_files()) if os.name != "nt" else 0, me.num_threads()
    for number in range(RUNS):
        folder = tmp_path / str(number)
        folder.mkdir()
        runner = place.runner()
        runner.start(job(folder, size=(18, 18, 18)))
        outcome = follow(runner)
        assert len(outcome.done) == 1, outcome
        runner.stop()
        assert {path.name for path in folder.iterdir()} == {"cases.json", "in.nrrd", "0.seg.nrrd"}
        shutil.rmtree(folder)
    time.sleep(0.2)
    assert not alive([child for child in me.children(recursive=True) if child.pid not in others])
    assert me.num_threads() <= threads + 1
    assert (len(me.open_files()) if os.name != "nt" else 0) <= before


def test_paths_with_spaces_and_other_scripts(place, tmp_path):
    folder = tmp_path / "Zürich 脳 'a\" b"
    folder.mkdir()
    place.environment["LC_ALL"] = "C"
    runner = place.runner()
    runner.start(job(folder, size=(18, 18, 18)))
    outcome = follow(runner)
    assert not outcome.error
    assert io.read(outcome.done[0].result["outputs"]["labels"]).shape == (18, 18, 18)


@posix
def test_a_full_disk_is_told(place, tmp_path):
    """A limit on file sizes, as a full disk: the labels cannot be written."""
    line = f'ulimit -f 2; exec {place.command[0]} -m napari_mamba "$@"'
    place.command = ["bash", "-c", line, "bash"]
    data = np.random.default_rng(0).normal(100, 10, (40, 40, 40)).astype(np.float32)
    path = io.write(Volume(data[None]), tmp_path / "in.nrrd")
    from MambaImagingLib.compute.jobs import Case, Job, Options

    case = Case("case", (path,), {"output": tmp_path / "labels.nrrd", "probabilities": tmp_path / "p.nrrd"})
    runner = place.runner()
    runner.start(Job("tiny", (case,), Options(device="cpu"), tmp_path))
    outcome = follow(runner)
    assert not outcome.done
    (failed,) = outcome.cases
    assert "cannot be written" in failed.error
    assert not (tmp_path / "p.nrrd").exists()


# ---- a stand-in for the command: what the real one does seldom or never


@pytest.fixture
def script(tmp_path):
    """A runner of a few lines of Python instead of the command."""
    from MambaImagingLib.compute.runners import LocalRunner

    def make(*lines):
        path = tmp_path / "command.py"
        head = "import json, os, sys, time\ndef say(**e): print(json.dumps(e), flush=True)\n"
        path.write_text(head + "\n".join(lines), encoding="utf-8")
        runner = LocalRunner([sys.executable, str(path)])
        runner.start(job(tmp_path, size=(3, 3, 3)))
        return runner

    return make


RESULT = "say(event='case', case=0, count=1, name='c'); say(event='result', case=0, outputs={}, table=[])"


def test_noise_on_stdout_is_no_event(script):
    runner = script(
        'sys.stdout.buffer.write(b\'\\xff\\x00 noise\\n{"event": 3}\\n{not json}\\n[1]\\n{"event": "unknown"}\\n\')',
        'print(\'{"event": "progress", "fraction": NaN}\')',
        RESULT,
        "say(event='end', done=1)",
    )
    outcome = follow(runner)
    assert len(outcome.done) == 1
    assert "noise" in outcome.log


def test_the_last_line_counts_and_the_process_need_not_end(script):
    runner = script(RESULT, "say(event='end', done=1)", "time.sleep(60)")
    began = time.monotonic()
    outcome = follow(runner)
    assert len(outcome.done) == 1
    assert time.monotonic() - began < 5
    assert not alive(tree(runner.pid))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["sys.exit(0)"], "ended with the code 0 and gave no result"),
        (
            ["print('disk on fire', file=sys.stderr); sys.exit(7)"],
            "ended with the code 7 and gave no result. Its last words",
        ),
        ([RESULT, "sys.exit(1)"], "ended with the code 1"),
        (
            ["say(event='error', kind='bundle', message='the bundle is damaged')", "time.sleep(60)"],
            "the bundle is damaged",
        ),
    ],
)
def test_an_end_without_a_result_is_a_sentence(script, lines, said):
    outcome = follow(script(*lines))
    assert said in outcome.error


@pytest.mark.parametrize(("version", "said"), [(1, "update napari-mamba there"), (3, "update this extension")])
def test_events_of_another_version_are_told(script, version, said):
    runner = script(f"say(version={version}, event='progress', stage='loading')", "time.sleep(60)")
    assert said in follow(runner).error


@posix
def test_a_process_that_does_not_listen_is_killed_with_its_children(script):
    runner = script(
        "import signal, subprocess",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
        "say(event='progress', stage='network', fraction=0.5)",
        "time.sleep(60)",
    )
    follow(runner, lambda one: one.follower.stage == "network")
    processes = tree(runner.pid)
    assert len(processes) == 2
    began = time.monotonic()
    runner.cancel()
    assert follow(runner).cancelled
    assert 0.9 < time.monotonic() - began < 2
    psutil.wait_procs(processes, 1)
    assert not alive(processes)


def test_a_python_that_is_none_is_told(tmp_path):
    from MambaImagingLib.compute.places import LocalPlace, checked_python

    answer = LocalPlace(str(tmp_path / "nothing")).ask_version().poll()
    assert "cannot be started" in answer.error
    with pytest.raises(ValueError, match="is no Python"):
        checked_python(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="name a Python"):
        checked_python(" ")


def test_another_python_does_not_see_slicers_variables(python, tmp_path):
    """With Slicer's PYTHONHOME the interpreter would not start at all."""
    from MambaImagingLib.compute.places import foreign_environment

    broken = {
        **os.environ,
        "PYTHONHOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path),
        "LD_LIBRARY_PATH": f"/S/lib{os.pathsep}/x",
    }
    assert subprocess.run([python, "-c", "1"], env=broken, capture_output=True).returncode != 0
    cleaned = foreign_environment(broken, "/S")
    assert cleaned["LD_LIBRARY_PATH"] == "/x"
    assert subprocess.run([python, "-c", "1"], env=cleaned, capture_output=True).returncode == 0


def test_arguments_of_the_command(tmp_path):
    from MambaImagingLib.compute.jobs import Case, Job, Options

    options = Options("cuda:1", "float32", "32,64,64", 0.5, False, "x", "0.8", True)
    case = Case("a", (tmp_path / "a.nrrd",), {"output": tmp_path / "o.seg.nrrd"}, (0, 1, 2, 3, 4, 5))
    words = Job("b", (case,), options, tmp_path).arguments()
    assert words[:3] == ["run", "b", "--cases"]
    assert set(words[7:]) == {
        "--device=cuda:1", "--precision=float32", "--tile=32,64,64", "--overlap=0.5", "--no-mirror", "--axis=x",
        "--spacing=0.8", "--resample-channels",
    }  # fmt: skip
    item = json.loads((tmp_path / "cases.json").read_text())[0]
    assert item["region"] == [0, 1, 2, 3, 4, 5]


def test_a_cluster_is_told_to_the_command_alone(place):
    assert "NAPARI_MAMBA_SCHEDULER" not in (place.runner().environment or {})
    place.scheduler = "tcp://head:8786"
    assert place.runner().environment == {**place.environment, "NAPARI_MAMBA_SCHEDULER": "tcp://head:8786"}
