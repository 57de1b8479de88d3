"""The guide: outputs that are there, stopped trainings, and children that fail."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import drained

from napari_mamba.errors import InputError, OutOfMemoryError, OutputError, RunError
from napari_mamba.training.nnunet.child import process
from napari_mamba.training.nnunet.child.settings import Settings
from napari_mamba.training.nnunet.guide import _Guide, train, work_folder
from napari_mamba.training.nnunet.options import TrainOptions

Make = Callable[..., Path]


def checked(place: Path, output: Path, **chosen: Any) -> None:
    _Guide(place, output, TrainOptions(**{"networks": ("umamba_bot",), **chosen}), threading.Event()).check_output()


def test_without_nnunet_a_sentence_says_what_to_install(
    dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'napari-mamba\[nnunet\]'"):
        next(train(dataset(), tmp_path / "out", TrainOptions(("umamba_bot",))))


def test_outputs_that_are_there_are_not_lost(dataset: Make, tmp_path: Path) -> None:
    place, output = dataset(), tmp_path / "out"
    output.mkdir()
    with pytest.raises(OutputError, match="is already there"):
        checked(place, output)
    with pytest.raises(OutputError, match="not a bundle"):
        checked(place, output, overwrite=True)
    with pytest.raises(OutputError, match="already there"):
        checked(place, output, networks=("umamba_bot", "nnunet"))
    with pytest.raises(OutputError, match=r"without \.zip"):
        checked(place, tmp_path / "two.zip", networks=("umamba_bot", "nnunet"))
    with pytest.raises(InputError, match="name a second"):
        checked(place, tmp_path / "one", networks=("resenc",))


def test_a_stopped_training_is_resumed_with_its_own_options(dataset: Make, tmp_path: Path) -> None:
    place, output = dataset(), tmp_path / "out"
    work_folder(output).mkdir()
    remembered = {"dataset": str(place), **TrainOptions(("umamba_bot",), batch_size=2).remembered()}
    (work_folder(output) / "options.json").write_text(json.dumps(remembered))
    with pytest.raises(OutputError, match="--resume"):
        checked(place, output)
    with pytest.raises(InputError, match="another batch size"):
        checked(place, output, resume=True)
    with pytest.raises(InputError, match="another dataset"):
        checked(tmp_path / "other", output, resume=True, batch_size=2)
    checked(place, output, resume=True, batch_size=2, epochs=5, folds="0", mixers=("mamba", "s5"))
    checked(place, output, overwrite=True)
    assert not work_folder(output).exists()


def child(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancel: threading.Event) -> tuple[list, bool]:
    """What a child that runs `code` tells, and whether it counts as stopped."""
    popen = process.subprocess.Popen

    def started(line: list[str], **named: Any) -> Any:
        return popen([sys.executable, "-c", code], **named)

    monkeypatch.setattr(process.subprocess, "Popen", started)
    settings = Settings(events=str(tmp_path / "events.jsonl"), stop=str(tmp_path / "stop"))
    return drained(process.run_job({"action": "train"}, settings, tmp_path, cancel, 1))


_TELL = (
    "from napari_mamba.training.nnunet.child.settings import Settings; "
    "s = Settings.of_environment(); s.tell('step', loss=1);"
)


def test_what_a_child_tells_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.jsonl").write_text('{"what": "of an earlier run"}\n')
    told, stopped = child(_TELL, tmp_path, monkeypatch, threading.Event())
    assert (told, stopped) == ([{"what": "step", "loss": 1}], False)


def test_a_child_that_is_asked_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = threading.Event()
    cancel.set()
    wait = "import sys, time\nwhile not s.stop_asked(): time.sleep(0.05)\ns.tell('saved'); sys.exit(3)"
    told, stopped = child(f"{_TELL}\n{wait}", tmp_path, monkeypatch, cancel)
    assert stopped
    assert [line["what"] for line in told] == ["step", "saved"]
    assert not (tmp_path / "stop").exists()


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("raise ValueError('patch too large')", RunError, "ValueError: patch too large.*nnunet.log.*--resume"),
        ("raise RuntimeError('CUDA out of memory. Tried')", OutOfMemoryError, "--gpu-memory"),
        ("raise OSError(28, 'No space left on device')", OutputError, "is full.*--resume"),
    ],
)
def test_why_a_child_failed(
    code: str, error: type[Exception], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(error, match=says):
        child(code, tmp_path, monkeypatch, threading.Event())


def test_training_stops_where_nobody_waits_for_it_any_more() -> None:
    process_ = process.subprocess.Popen([sys.executable, "-c", ""])
    process_.wait()
    assert Settings(parent=process_.pid).stop_asked()
    assert not Settings(parent=os.getpid()).stop_asked()
    assert not Settings().stop_asked()
