"""`--events jsonl`, as docs/events.md promises it to programs, and stopping a run."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from napari_mamba import engine, io
from napari_mamba.errors import OutOfMemoryError


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_stdout_holds_events_alone_and_ends_with_the_result(command, tiny_bundle, image, folder):
    done = command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz", "--events", "jsonl")
    assert done.code == 0, done.err
    events = lines(done.out)
    assert {event["version"] for event in events} == {2}
    assert [event["event"] for event in events].count("result") == 1
    result = events[-1]
    assert result["event"] == "result"
    assert result["outputs"] == {"labels": str(folder / "labels.nii.gz")}
    assert [row["name"] for row in result["table"]] == ["anterior", "posterior"]
    network = [event for event in events if event.get("stage") == "network"]
    assert network[-1]["done"] == network[-1]["total"] > 1
    assert [event["done"] for event in network] == sorted(event["done"] for event in network)
    stages = list(dict.fromkeys(event["stage"] for event in events if event["event"] == "progress"))
    assert stages[0] == "loading"
    assert stages[-1] == "writing"


def test_an_error_is_an_event_and_a_line(command, tiny_bundle, folder):
    done = command("run", tiny_bundle, folder / "none.nii", "-o", folder / "labels.nii.gz", "--events", "jsonl")
    assert done.code == 2
    (event,) = lines(done.out)
    assert (event["event"], event["kind"], event["exit_code"]) == ("error", "input", 2)
    assert done.error == f"error: {event['message']}"


def test_prints_of_libraries_do_not_break_the_lines(command, tiny_bundle, image, folder, monkeypatch):
    real = engine.run_to_end

    def chatty(*arguments, **keywords):
        print("hello from a library")
        return real(*arguments, **keywords)

    monkeypatch.setattr(engine, "run_to_end", chatty)
    done = command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz", "--events", "jsonl")
    assert done.code == 0
    assert lines(done.out)[-1]["event"] == "result"
    assert "hello" in done.err


def test_warnings_come_as_events(command, tiny_bundle, volume, folder):
    negative = io.write(volume.with_data(volume.data - 150), folder / "negative.nii.gz")
    done = command("run", tiny_bundle, negative, "-o", folder / "labels.nii.gz", "--events", "jsonl")
    warnings = [event["message"] for event in lines(done.out) if event["event"] == "warning"]
    assert len(warnings) == 1
    assert "should be MR" in warnings[0]


def test_only_jsonl_is_known(command, tiny_bundle, image, folder):
    done = command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz", "--events", "xml")
    assert done.code == 2
    assert "jsonl" in done.error


def test_memory_that_runs_out_has_its_own_code(command, tiny_bundle, image, folder, monkeypatch):
    def full(*arguments, **keywords):
        raise OutOfMemoryError("memory of the GPU ran out at the smallest tile: choose the device cpu")

    monkeypatch.setattr(engine, "run_to_end", full)
    done = command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz")
    assert done.code == 3
    assert "choose the device cpu" in done.error
    assert not list(folder.iterdir())


def test_a_fault_is_one_line_and_debug_shows_where(command, tiny_bundle, image, folder, monkeypatch):
    def broken(*arguments, **keywords):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(engine, "run_to_end", broken)
    done = command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz")
    assert done.code == 1
    assert "ZeroDivisionError: division by zero" in done.error
    monkeypatch.setenv("NAPARI_MAMBA_DEBUG", "1")
    told = command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz")
    assert told.code == 1
    assert "Traceback" in told.err
    assert "in broken" in told.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_between_tiles_and_leaves_nothing(start, tiny_bundle, sample_data, folder, number):
    process = start(
        *("run", tiny_bundle, sample_data / "icbm2009a_t1.nii.gz", "-o", folder / "labels.nii.gz"),
        *("--overlay", folder / "overlay.png", "--report", folder / "report.json", "--events", "jsonl"),
    )
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("stage") == "network" and events[-1]["done"] >= 1:
            process.send_signal(number)
            break
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert lines(rest)[-1] == {"version": 2, "event": "result", "cancelled": True, "outputs": {}}
    assert "cancelled" in err
    assert "Traceback" not in err
    assert not list(folder.iterdir())
