"""What can be chosen, said and run in the dock "Learn", without Qt; a script stands for the command."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_mamba import bundles, io
from napari_mamba.errors import OutputError
from napari_mamba.training.adaptation.data.cases import find_cases
from napari_mamba.ui.bundles.library import Library
from napari_mamba.ui.layers import KEY, volume_to_layers
from napari_mamba.ui.learn.child import Child
from napari_mamba.ui.learn.choices import Choices
from napari_mamba.ui.learn.images import staging
from napari_mamba.ui.learn.session import IDLE, RUNNING, STOPPING, LearnSession, ended_sentence
from napari_mamba.volume import Volume

AFFINE = np.array([[0.0, 0.2, 0.9, -30], [0.1, 1.0, 0.0, 12], [2.5, 0.0, -0.1, 5], [0, 0, 0, 1]])


class Script:
    """What would be the command."""

    def __init__(self, words):
        self.words, self.said = list(words), []

    def stop(self) -> None:
        self.said.append("stop")

    def kill(self) -> None:
        self.said.append("kill")


def add(viewer: ViewerModel, name: str, value: int = 1, affine: np.ndarray = AFFINE) -> None:
    """An image and labels on its grid."""
    rng = np.random.default_rng(len(viewer.layers))
    (data, keywords, _), *_ = volume_to_layers(Volume(rng.random((1, 6, 8, 10)), affine, name=name))
    viewer.add_layer(Layer.create(data, keywords, "image"))
    drawn = np.zeros(data.shape, np.uint8)
    drawn[2:4, 2:4, 2:4] = value
    viewer.add_layer(Layer.create(drawn, {**keywords, "name": f"{name} drawn"}, "labels"))


@pytest.fixture
def session(tiny, bundle_folder: Path, tmp_path: Path, monkeypatch):
    """A session whose bundles lie in a folder of its own, with three people's images open."""
    for path in bundle_folder.iterdir():
        (tmp_path / "mine" / path.name).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / path.name).symlink_to(path)
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path / "mine"))
    viewer = ViewerModel()
    for name in ("p1", "p2", "p3"):
        add(viewer, name)
    session = LearnSession(viewer, Library())
    session.choose_bundle(session.library.find("tiny"))
    session.scripts = []
    session.start_child = lambda words: session.scripts.append(Script(words)) or session.scripts[-1]
    return session


def start(session: LearnSession) -> Script:
    session.begin_staging()
    session.run(session.stage_all())
    return session.scripts[-1]


def progress(stage: str, done: int = 1, **fields) -> dict:
    return {
        "event": "progress",
        "stage": stage,
        "done": done,
        "total": 10,
        "fraction": done / 10,
        "message": "",
        **fields,
    }


def learnt(session: LearnSession) -> None:
    """What the command would have made."""
    tiny = bundles.load("tiny")
    bundles.save(session.output, replace(tiny.spec, name=session.output.name), [tiny.networks()[0].state_dict()], "# M")


SCORE = {"mean": 0.8, "sd": 0.0, "people": 1, "images": 1, "classes": {"1": 0.8}}


def test_pairs_are_found_by_grid_and_name(session: LearnSession) -> None:
    assert session.pairs.add_all() == 3
    assert [(p.image.name, p.labels.name, p.person) for p in session.pairs.rows] == [
        ("p1", "p1 drawn", "p1"), ("p2", "p2 drawn", "p2"), ("p3", "p3 drawn", "p3"),
    ]  # fmt: skip
    assert len(session.pairs.held_out) == 1  # a fifth, at least one
    assert session.pairs.add() is None


def test_a_person_is_held_out_with_all_images(session: LearnSession) -> None:
    session.pairs.add_all()
    first, second, third = session.pairs.rows
    for pair in session.pairs.rows:
        session.pairs.change(pair, held_out=False)
    session.pairs.change(second, person="p1")
    session.pairs.change(first, held_out=True)
    assert [pair.held_out for pair in (first, second, third)] == [True, True, False]
    assert "Learns from 1 image of 1 person. The score stands on 2 images of 1 person" in session.remarks()[0][1]
    session.pairs.change(third, held_out=True)
    assert session.remarks() == [("error", "Every person is held out: leave some to learn from.")]
    assert not session.ready


def test_one_person_has_no_score_and_is_told_so(session: LearnSession) -> None:
    session.pairs.add()
    (kind, text), *_ = session.remarks()
    assert kind == "warning"
    assert "its score stays unknown, since a score on training data says nothing" in text
    assert session.ready
    assert "--no-validation" in start(session).words


def test_who_may_be_one_person_is_asked(session: LearnSession) -> None:
    add(session.viewer, "anna_left")
    add(session.viewer, "anna_right")
    rows = session.pairs.rows
    session.pairs.add(session.viewer.layers["anna_left"])
    session.pairs.add(session.viewer.layers["anna_right"])
    kind, text = session.remarks()[0]
    assert kind == "warning"
    assert text.startswith("Are 'anna_")
    session.pairs.change(rows[0], person="anna")
    session.pairs.change(rows[1], person="anna")
    assert "one person?" not in session.remarks()[0][1]


def test_what_speaks_against_it_is_said_before(session: LearnSession, tmp_path: Path) -> None:
    assert session.remarks() == [("hint", "Add an image with its labels: open both, and press Add.")]
    session.pairs.add()
    (pair,) = session.pairs.rows
    add(session.viewer, "elsewhere", affine=AFFINE @ np.diag([2.0, 1, 1, 1]))
    session.pairs.change(pair, labels=session.viewer.layers["elsewhere drawn"])
    assert "lies on another grid than 'p1'" in session.remarks()[0][1]
    session.viewer.layers.remove("elsewhere drawn")
    assert "'p1' has no labels" in session.remarks()[0][1]
    session.pairs.change(pair, labels=session.viewer.layers["p1 drawn"])
    for name, said in (("", "Give the new model a name."), ("tiny", "already"), ("a b", "letters, digits")):
        session.choices.name = name
        assert said in session.remarks()[0][1]
        assert not session.ready
    session.choices.name = "fine"
    assert session.ready
    for field, value, said in (("scheme", "cross", "images without labels"), ("minutes", 0.0, "more than 0"),
                               ("unlabelled", str(tmp_path), "Nothing is learnt"), ("place", "/nowhere", "not there"),
                               ("scheme", "scribbles", "say that they are unknown")):  # fmt: skip
        before = getattr(session.choices, field)
        setattr(session.choices, field, value)
        assert said in session.remarks()[0][1]
        setattr(session.choices, field, before)


def test_only_what_can_be_adapted_is_offered(session: LearnSession) -> None:
    names = [bundle.name for bundle in session.starts]
    assert {"tiny", "hippocampus-mr", "brain-structures-mr"} <= set(names)
    assert not {"mr-denoise", "mr-quality", "mr-superres"} & set(names)


def test_layers_are_written_as_the_command_reads_them(session: LearnSession) -> None:
    session.pairs.add_all()
    layer = session.viewer.layers["p1 drawn"]
    layer.metadata[KEY] = {"classes": [{"index": 1, "name": "amygdala", "color": "#ff0000"}]}
    words = start(session).words
    assert words[0] == str(bundles.load("tiny").path) or words[0].endswith("tiny")
    rows = list(csv.DictReader(Path(words[1]).read_text().splitlines()))
    assert [(row["image"], row["person"]) for row in rows] == [(f"p{n}.nii.gz", f"p{n}") for n in (1, 2, 3)]
    image = io.read(Path(words[1]).parent / "p1.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    labels = io.read_labels(Path(words[1]).parent / "p1-labels.nii.gz")
    assert [(entry.index, entry.name) for entry in labels.classes] == [(1, "amygdala")]
    assert not io.read_labels(Path(words[1]).parent / "p2-labels.nii.gz").named  # "label 1" is no name
    (held_out,) = session.pairs.held_out
    assert words[words.index("--validation") + 1] == held_out
    assert words[words.index("--preview") + 1] == "p1"


def channels(
    viewer: ViewerModel, name: str, seed: int, names: tuple[str, ...] = ("T1", "FLAIR"), path: str = ""
) -> None:
    """An image of several channels, as a file of them opens, and labels on its grid."""
    volume = Volume(np.random.default_rng(seed).random((len(names), 6, 8, 10)), AFFINE, names, name=name)
    for data, keywords, _ in volume_to_layers(volume, path):
        viewer.add_layer(Layer.create(data, keywords, "image"))
    drawn = np.zeros(data.shape, np.uint8)
    drawn[2:4, 2:4, 2:4] = 1
    viewer.add_layer(Layer.create(drawn, {**keywords, "name": f"{name} drawn"}, "labels"))


def test_a_model_of_two_channels_finds_both_layers_of_each_person(session: LearnSession) -> None:
    viewer = session.viewer
    viewer.layers.clear()
    channels(viewer, "anna", 1)
    channels(viewer, "ben", 2, ("FLAIR", "T1"))
    channels(viewer, "carl", 3, ("0", "1"), path="carl.nii.gz")  # its file says which is which
    session.choose_bundle(session.library.find("tiny-two"))
    assert session.pairs.add_all() == 3
    assert [(*(layer.name for layer in pair.layers), pair.labels.name, pair.person) for pair in session.pairs.rows] == [
        ("anna T1", "anna FLAIR", "anna drawn", "anna"), ("ben T1", "ben FLAIR", "ben drawn", "ben"),
        ("carl 0", "carl 1", "carl drawn", "carl 0"),
    ]  # fmt: skip
    assert session.ready
    words = start(session).words
    rows = list(csv.DictReader(Path(words[1]).read_text().splitlines()))
    first, second = (Path(words[1]).parent / one for one in rows[1]["image"].split(";"))
    np.testing.assert_allclose(io.read(first).data[0], np.random.default_rng(2).random((2, 6, 8, 10))[1], atol=1e-6)
    volume = io.read([first, second])
    assert volume.channels == 2
    assert rows[1]["image"] == "ben_T1.nii.gz;channel2/ben_T1.nii.gz"
    assert find_cases(Path(words[1])).cases[1].name == "ben_T1"  # what --preview calls it


def test_channels_in_doubt_are_asked_for(session: LearnSession) -> None:
    session.pairs.add()
    (pair,) = session.pairs.rows
    session.choose_bundle(session.library.find("tiny-two"))
    assert session.remarks()[0] == (
        "error", "Which layer is FLAIR of 'p1'? Choose its row, and the layer below the list.",
    )  # fmt: skip
    other = session.viewer.layers["p2"]
    for layer, said in ((pair.image, "One layer is two channels of 'p1'"), (other, "")):
        session.pairs.change(pair, more=(layer,))
        assert said in session.remarks()[0][1]
    assert session.ready
    assert "p2" not in [layer.name for layer in session.pairs.free]  # it is a channel now
    add(session.viewer, "elsewhere", affine=AFFINE @ np.diag([2.0, 1, 1, 1]))
    session.pairs.change(pair, more=(session.viewer.layers["elsewhere"],))
    assert "'elsewhere' lies on another grid than 'p1'" in session.remarks()[0][1]
    session.viewer.layers.remove("elsewhere")
    assert pair.more == (None,)
    session.choose_bundle(session.library.find("tiny"))
    assert session.ready


def test_paint_in_part_and_schemes_become_words(tmp_path: Path) -> None:
    choices = Choices(unpainted="unknown", background=7, scheme="mean-teacher", minutes=2.5, encoder_stays=True)
    assert choices.words() == [
        "--classes", "other", "--minutes", "2.5", "--device", "auto", "--unknown", "0", "--background", "7",
        "--scheme", "mean-teacher", "--freeze", "encoder",
    ]  # fmt: skip
    again = Choices()
    again.take({**json.loads(json.dumps(choices.to_dict())), "minutes": "many", "unknown": 3})
    assert again.scheme == "mean-teacher"
    assert again.minutes == 10.0


def test_events_become_a_curve_a_preview_and_a_model(session: LearnSession, make_bundle, tmp_path: Path) -> None:
    session.pairs.add_all()
    shown: list[str] = []
    session.previewed.connect(shown.append)
    start(session)
    assert session.state == RUNNING
    for step in range(1, 4):
        session.take(progress("training", step, loss=1.0 / step, seconds_left=5.0))
    session.take(progress("validating", score=SCORE, best=True, message="Dice 0.800 on 1 held-out person"))
    session.take(progress("previewing", preview="/somewhere/preview.nii.gz"))
    assert session.curve.losses[-1] == (3, pytest.approx(0.9 * (0.9 + 0.05) + 0.1 / 3))
    assert session.curve.best == (3, 0.8)
    assert shown == ["/somewhere/preview.nii.gz"]
    staged = staging.work_folder(session.output) / "data"
    assert staged.is_dir()
    learnt(session)
    facts = {"score": SCORE, "before": 0.25}
    session.take({"event": "result", "cancelled": False, "outputs": {"bundle": str(session.output)}, "adapted": facts})
    assert session.state == IDLE
    assert session.made is not None
    assert session.made in session.library.bundles  # at once
    kind, text = session.last
    assert kind == "good"
    assert "Dice 0.800 on 1 held-out person; before, 0.250. So few people" in text
    assert not staged.exists()
    assert session.choices.name == "tiny-mine-2"  # ready for another one
    assert not session.unfinished


def test_correcting_goes_on_from_what_was_made(session: LearnSession) -> None:
    session.pairs.add_all()
    start(session)
    learnt(session)
    session.take({"event": "result", "cancelled": False, "outputs": {"bundle": str(session.output)}, "adapted": {}})
    made, held_out = session.made, session.pairs.held_out
    corrected = session.viewer.add_labels(np.asarray(session.viewer.layers["p1 drawn"].data), name="preview: p1")
    corrected.affine, corrected.scale = session.viewer.layers["p1"].affine, session.viewer.layers["p1"].scale
    corrected.translate, corrected.units = session.viewer.layers["p1"].translate, session.viewer.layers["p1"].units
    session.correct_with(corrected)
    session.choices.unpainted = "unknown"
    assert session.pairs.rows[0].labels is corrected
    assert session.go_on()
    assert session.bundle is made
    assert session.choices.name != made.name
    assert session.choices.classes == "same"  # the tiny bundle knows the value 1
    words = start(session).words
    assert words[0] == str(made.path)
    drawn = np.asarray(io.read_labels(Path(words[1]).parent / "p1-labels.nii.gz").volume.data)
    assert set(np.unique(drawn)) == {1, 9}  # a corrected answer is whole: nothing of it is unknown
    assert set(np.unique(io.read_labels(Path(words[1]).parent / "p2-labels.nii.gz").volume.data)) == {0, 1}
    assert words[words.index("--validation") + 1] == held_out[0]


def test_the_end_says_what_the_score_stands_on() -> None:
    assert "nobody was held out" in ended_sentence("mine", {"held_out_people": 0}, False)
    assert "stopped before it was scored" in ended_sentence("mine", {"held_out_people": 2}, True)
    many = {"score": {"mean": 0.8712, "sd": 0.02, "people": 6}, "before": 0.5}
    text = ended_sentence("mine", many, False)
    assert text == "'mine' is in the list of models. Dice 0.871 ± 0.020 on 6 held-out people; before, 0.500."


def test_stopping_twice_ends_it_at_once(session: LearnSession) -> None:
    session.pairs.add_all()
    script = start(session)
    session.stop()
    assert session.state == STOPPING
    session.stop()
    assert script.said == ["stop", "kill"]
    session.take({"event": "result", "cancelled": True, "outputs": {}, "adapted": {}})
    assert session.last == ("warning", "It was stopped before there was anything to keep.")


def test_a_killed_training_is_resumed_by_a_new_window(session: LearnSession) -> None:
    session.pairs.add_all()
    session.choices.minutes = 3.0
    words = start(session).words
    output = session.output
    folder = staging.work_folder(output)
    (folder / "checkpoint.pt").write_bytes(b"of the command")
    session.take({"event": "error", "kind": "fault", "message": "the system ended the training", "exit_code": -9})
    assert session.last == ("error", "The system ended the training.")
    assert [one.output for one in session.unfinished] == [output]
    assert "is the name of a stopped training" in session.remarks()[0][1]
    other = LearnSession(ViewerModel(), session.library)
    other.start_child = session.start_child
    (stopped,) = other.unfinished
    other.resume(stopped)
    assert session.scripts[-1].words == [*words, "--resume"]
    assert other.choices.minutes == 3.0
    other.take({"event": "error", "message": "again"})
    other.discard(stopped)
    assert not folder.exists()
    assert not other.unfinished


def test_a_disk_that_refuses_is_a_sentence(session: LearnSession, monkeypatch) -> None:
    session.pairs.add_all()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging.io, "write", full)
    session.begin_staging()
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\): free some space"):
        session.stage_all()


def test_a_strange_note_is_no_training(session: LearnSession, tmp_path: Path) -> None:
    folder = bundles.user_folder() / "odd.adapting"
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes(b"x")
    for words in (["a"], ["-o"], ["-o", "/elsewhere"], ["-o", str(folder.with_suffix("")), "--overwrite"]):
        (folder / "learn.json").write_text(json.dumps({"words": words, "choices": {}}))
        assert staging.unfinished() == []
    for text in ("{", "[]", '{"words": 3}'):
        (folder / "learn.json").write_text(text)
        assert staging.unfinished() == []


def test_a_command_that_dies_is_a_sentence(monkeypatch) -> None:
    import threading

    events, over = [], threading.Event()

    def take(event) -> None:
        events.append(event)
        if event["event"] in ("result", "error"):
            over.set()

    child = Child(["no-such-bundle", "/nowhere", "-o", "/tmp/none"], take)
    assert over.wait(300)
    child.process.wait()
    assert events[-1]["event"] == "error"
    assert "no-such-bundle" in events[-1]["message"]
    assert len([event for event in events if event["event"] == "error"]) == 1


def test_nothing_here_imports_pytorch_or_qt() -> None:
    code = (
        "import sys, napari_mamba.ui.learn.session; "
        "assert 'torch' not in sys.modules; assert not [m for m in sys.modules if 'PySide' in m or 'PyQt' in m]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
