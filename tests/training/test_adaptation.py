"""Adapting a bundle to blobs: it learns, unknown is not background, pieces equal the whole, bad data is a sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mamba import bundles, io
from napari_mamba.bundles.guards.locator import Locator
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError, InputError, NapariMambaError, OutputError
from napari_mamba.training.adaptation import training
from napari_mamba.training.adaptation.adapt import adapt, work_folder
from napari_mamba.training.adaptation.card import adapted_spec
from napari_mamba.training.adaptation.data.cases import find_cases
from napari_mamba.training.adaptation.data.people import Case, doubtful_people, person_of, split_people
from napari_mamba.training.adaptation.data.prepared import prepare_pair
from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.data.store import Painted
from napari_mamba.training.adaptation.loss import UNKNOWN, partial_loss
from napari_mamba.training.adaptation.options import NETWORKS, Adapted, AdaptOptions
from napari_mamba.training.adaptation.preview import about_drawn
from napari_mamba.training.adaptation.schemes import SCHEMES
from napari_mamba.training.adaptation.state import read_checkpoint
from napari_mamba.training.adaptation.targets import heads
from napari_mamba.training.adaptation.targets.classes import choose_classes
from napari_mamba.training.adaptation.targets.likeness import most_alike
from napari_mamba.volume import Volume

QUICK = {"device": "cpu", "minutes": 5.0, "learning_rate": 5e-3, "batch_size": 1}


def blob(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright cube, and the cube."""
    rng = np.random.default_rng(seed)
    image, label = rng.normal(0, 0.3, (16, 18, 20)).astype(np.float32), np.zeros((16, 18, 20), np.uint8)
    z, y, x = rng.integers(1, 8, 3)
    label[z : z + 8, y : y + 8, x : x + 8] = 1
    return image + 2 * label, label


def write(root: Path, name: str, image: np.ndarray, label: np.ndarray | None, affine: np.ndarray | None = None) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    io.write(Volume(image[None], affine=np.eye(4)), root / "images" / f"{name}.nii.gz")
    if label is not None:
        grid = np.eye(4) if affine is None else affine
        io.write(Volume(label[None], affine=grid), root / "labels" / f"{name}.nii.gz")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four people with a cube of the value 7, which the tiny bundle does not know."""
    for number in range(4):
        image, label = blob(number)
        write(tmp_path / "data", f"p{number}", image, 7 * label)
    return tmp_path / "data"


def to_end(*arguments, stop_at: int | None = None, **options) -> Adapted:
    cancel = threading.Event()
    events = adapt(*arguments, AdaptOptions(**{**QUICK, **options}), cancel)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if stop_at is not None and event.stage == "training" and event.done == stop_at:
            cancel.set()


def test_a_new_class_is_learnt_and_the_bundle_runs(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    result = to_end(tiny_bundle, data, tmp_path / "cube", classes="other", steps=40)
    assert result.score is not None
    assert result.score.mean > 0.6
    assert result.score.people == 1
    bundle = bundles.load(tmp_path / "cube")
    assert [(entry.index, entry.name) for entry in bundle.classes] == [(0, "background"), (7, "label 7")]
    image, label = blob(99)
    labels = run_to_end(Volume(image[None], affine=np.eye(4)), bundle, RunOptions(device="cpu")).labels
    found = np.asarray(labels.data[0]) == 7
    assert 2 * (found & (label == 1)).sum() / (found.sum() + label.sum()) > 0.6
    assert "Not for clinical use" in bundle.card
    assert "1 held-out person" in bundle.card
    assert "`tiny`" in bundle.card
    assert result.facts["peak_memory_bytes"] > 0
    assert not (work_folder(tmp_path / "cube") / "images").exists()


def test_the_size_of_its_own_images_is_not_doubted(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    """Images of 16 to 20 mm, for a bundle of whole heads whose field of view another one finds in larger images."""
    spec = bundles.load(tiny_bundle).spec
    locator = Locator("finder", {"left": (1,), "right": (2,)}, larger_than_mm=(60.0, 60.0, 60.0))
    steps = ({"step": "field_of_view", "mm": [80, 400], "max_mm": 700}, *spec.preparation)
    head = bundles.load(bundles.save(tmp_path / "head", replace(spec, preparation=steps, locator=locator),
                                     [bundles.load(tiny_bundle).networks()[0].state_dict()], "# Head"))  # fmt: skip
    to_end(head.path, data, tmp_path / "out", classes="other", steps=1)
    adapted = bundles.load(tmp_path / "out")
    assert adapted.preparation[0] == {"step": "field_of_view", "mm": [12, 400], "max_mm": 700}
    assert adapted.locator is None  # the place of somebody's own structure is not the bundle's
    classes = choose_classes(head.spec, {0, 1}, {})
    facts = {"training_people": 1, "view_mm": [16.0, 500.0], "located": False}
    kept = adapted_spec(head, "kept", head.network, classes, (16, 16, 16), facts)
    assert kept.locator == locator
    assert kept.preparation[0]["mm"] == [12, 600]
    located = adapted_spec(head, "kept", head.network, classes, (16, 16, 16), {**facts, "located": True})
    assert located.locator is None


def test_one_class_more_keeps_the_old_weights_and_answers(tiny_bundle: Path) -> None:
    bundle = bundles.load(tiny_bundle)
    described, network = heads.with_classes(bundle, (0, 1, 2, None), seed=1)
    assert described.arguments["num_classes"] == 4
    (old,) = bundle.networks()
    tile = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(tile)[:, :3], old(tile))
        _, other = heads.with_classes(bundle, (0, 2), seed=1)
        torch.testing.assert_close(other.eval()(tile), old(tile)[:, [0, 2]])


def test_a_new_class_begins_as_the_one_that_is_likeliest_there(tiny_bundle: Path) -> None:
    class Bright(torch.nn.Module):
        """Channel 2 where it is bright, 1 where it is dark, 0 between."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(x), -9 * x, 9 * x], 1)

    image, labels = np.zeros((1, 10, 12, 14), np.float32), np.zeros((10, 12, 14), np.int16)
    image[0, 2:6, 2:6, 2:6], labels[2:6, 2:6, 2:6] = 1, 1
    image[0, 6:9, 6:9, 6:9], labels[6:9, 6:9, 6:9] = -1, 2
    places = {channel: np.argwhere(labels == channel) for channel in range(3)}
    case = Prepared(Case("p", "p", (), None), image, labels, places, True)
    found = most_alike(Bright(), [case], (8, 8, 8), (0, None, None), torch.device("cpu"))
    assert found == (0, 2, 1)
    assert most_alike(Bright(), [case], (8, 8, 8), (0, 2, None), torch.device("cpu")) == (0, 2, 1)
    assert most_alike(Bright(), [case], (8, 8, 8), (0, 2, None, None), torch.device("cpu"))[3] == 0  # nowhere drawn
    bundle = bundles.load(tiny_bundle)
    (old,) = bundle.networks()
    _, network = heads.with_classes(bundle, (0, None), seed=1, like=(0, 2))
    tile = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        began, known = network.eval()(tile)[:, 1].flatten(), old(tile)[:, 2].flatten()
    assert float(torch.corrcoef(torch.stack([began, known]))[0, 1]) > 0.9


def test_unknown_voxels_have_no_gradient_and_background_has() -> None:
    torch.manual_seed(0)
    target = torch.tensor([[0, 1, UNKNOWN, UNKNOWN]])
    logits = torch.randn(1, 2, 4, requires_grad=True)
    partial_loss(logits, target, [True, True]).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, 2:] == 0).all()
    assert (logits.grad[0, :, :2] != 0).all()
    known = logits.detach()[:, :, :2]
    torch.testing.assert_close(
        partial_loss(logits.detach(), target, [True, True]), partial_loss(known, target[:, :2], [True, True])
    )


def test_background_may_be_a_class_that_nobody_drew() -> None:
    sure_of_2 = torch.tensor([[[-9.0], [-9.0], [9.0]]])
    background = torch.tensor([[0]])
    assert partial_loss(sure_of_2, background, [True, True, False]) < 0.01
    assert partial_loss(sure_of_2, background, [True, True, True]) > 10


def test_scribbles_are_enough_for_a_cube(tiny_bundle: Path, tmp_path: Path) -> None:
    """A tenth of the voxels is painted: 2 background, 1 cube, 0 unpainted as in napari."""
    for number in range(4):
        image, label = blob(number)
        painted = np.where(np.random.default_rng(number).random(label.shape) < 0.1, 2 - label, 0).astype(np.uint8)
        write(tmp_path / "data", f"p{number}", image, painted)
    options = {"unknown": 0, "background": 2, "steps": 40}
    result = to_end(tiny_bundle, tmp_path / "data", tmp_path / "out", **options)
    assert result.facts["partial"]
    image, label = blob(99)
    bundle = bundles.load(tmp_path / "out")
    labels = run_to_end(Volume(image[None], affine=np.eye(4)), bundle, RunOptions(device="cpu")).labels
    found = np.asarray(labels.data[0]) == 1
    assert 2 * (found & (label == 1)).sum() / (found.sum() + label.sum()) > 0.6


def test_labels_follow_their_image(rng: np.random.Generator, oblique_affine: np.ndarray) -> None:
    """The image of a label map, prepared as an image without interpolation, is the prepared label map."""
    labels = rng.integers(1, 4, (12, 14, 16)).astype(np.int16)
    labels[:2] = 0
    steps = [
        {"step": "orient", "axcodes": "RAS"},
        {"step": "crop_nonzero"},
        {"step": "transpose", "axes": [1, 2, 0]},
        {"step": "resample", "spacing": [1.0, 1.0, 2.0], "order": 0},
        {"step": "centre", "size": [9, 40, 9]},
    ]
    volume = Volume(labels[None].astype(np.float32), affine=oblique_affine)
    image, moved = prepare_pair(volume, labels, steps)
    np.testing.assert_array_equal(image, prepare(volume, steps).data)
    known = moved != UNKNOWN
    assert known.mean() > 0.2
    np.testing.assert_array_equal(image[0][known], moved[known])


@pytest.fixture
def one_thread():
    """Gradients that several threads add up differ in their last bits from one time to the next."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_pieces_end_where_an_uninterrupted_training_does(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    options = {"classes": "other", "steps": 8, "validate_every": 4}
    whole = to_end(tiny_bundle, data, tmp_path / "whole", **options)
    stopped = to_end(tiny_bundle, data, tmp_path / "pieces", stop_at=5, **options)
    assert stopped.cancelled
    assert bundles.load(tmp_path / "pieces").metrics["adapted"]["steps"] == 5
    with pytest.raises(OutputError, match="exists already"):
        to_end(tiny_bundle, data, tmp_path / "pieces", **options)
    with pytest.raises(InputError, match="another seed"):
        to_end(tiny_bundle, data, tmp_path / "pieces", **options, resume=True, seed=5)
    resumed = to_end(tiny_bundle, data, tmp_path / "pieces", **options, resume=True)
    assert resumed.score == whole.score
    assert not resumed.cancelled
    one, other = (read_checkpoint(work_folder(tmp_path / name)) for name in ("whole", "pieces"))
    assert one["step"] == other["step"] == 8
    for key, value in one["networks"].items():
        torch.testing.assert_close(value, other["networks"][key], rtol=0, atol=0)


def test_a_name_says_whose_scan_it_is() -> None:
    assert [person_of(n) for n in ("sub-01_ses-2", "patient007_frame01", "hippocampus_003")] == [
        "sub-01", "patient007", "hippocampus_003",
    ]  # fmt: skip


def test_scans_of_a_person_stay_together(tmp_path: Path) -> None:
    image, label = blob(0)
    for name in ("sub-1_a", "sub-1_b", "sub-2_a", "sub-2_b", "sub-3_a"):
        write(tmp_path, name, image, label)
    training, validation = split_people(find_cases(tmp_path).cases)
    assert not {case.person for case in training} & {case.person for case in validation}
    assert len(training) + len(validation) == 5
    assert validation


def test_who_may_be_one_person_is_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    image, label = blob(0)
    for name in ("anna_left", "anna_right", "ben_left", "zoe_left"):
        write(tmp_path / "data", name, image, label)
    given = (tiny_bundle, tmp_path / "data", tmp_path / "out")
    cases = find_cases(tmp_path / "data").cases
    assert doubtful_people(cases[1:], cases[:1]) == ("anna_left", "anna_right")
    assert doubtful_people(cases[:2], cases[2:]) is None
    assert doubtful_people(cases[2:], cases[:2]) is None
    two = [Case(name, name, (), None) for name in ("hippocampus_left", "hippocampus_right", "hippocampus_2")]
    assert doubtful_people(two[1:], two[:1]) == ("hippocampus_left", "hippocampus_right")
    assert doubtful_people(two[2:], two[:1]) is None
    with pytest.raises(InputError, match=r"'anna_right'.*'anna_left' one person\? Say who is who"):
        to_end(*given, steps=1)
    assert to_end(*given, steps=1, validation=("anna_left",)).score is not None  # it was asked


def test_a_person_learnt_from_is_no_validation_later(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    to_end(tiny_bundle, data, tmp_path / "first", classes="other", steps=1, validation=("p0",))
    with pytest.raises(InputError, match=r"has learnt from 'p1'.*training data"):
        to_end(tmp_path / "first", data, tmp_path / "second", steps=1, validation=("p1",))
    again = to_end(tmp_path / "first", data, tmp_path / "second", steps=1)
    assert again.score is not None
    assert again.facts["training_people"] == 3
    assert "p1" not in (tmp_path / "first" / "bundle.json").read_text()


def test_nobody_held_out_is_said(tiny_bundle: Path, tmp_path: Path) -> None:
    image, label = blob(0)
    write(tmp_path / "one", "p1", image, label)
    with pytest.raises(InputError, match=r"one person.*training data says nothing"):
        to_end(tiny_bundle, tmp_path / "one", tmp_path / "out", steps=1)
    result = to_end(tiny_bundle, tmp_path / "one", tmp_path / "out", steps=1, no_validation=True)
    assert result.score is None
    assert "Not measured: no person" in bundles.load(tmp_path / "out").card


def test_layouts_give_the_same_cases(data: Path, tmp_path: Path) -> None:
    rows = [f"data/images/p{n}.nii.gz,data/labels/p{n}.nii.gz,who{n % 2}" for n in range(4)]
    (tmp_path / "pairs.csv").write_text("image,label,person\n" + "\n".join(rows) + "\n")
    listed = find_cases(tmp_path / "pairs.csv").cases
    assert [case.person for case in listed] == ["who0", "who1", "who0", "who1"]
    nnunet = tmp_path / "Dataset001_Cube"
    (nnunet / "imagesTr").mkdir(parents=True)
    (data / "labels").rename(nnunet / "labelsTr")
    for path in (data / "images").iterdir():
        path.rename(nnunet / "imagesTr" / path.name.replace(".nii", "_0000.nii"))
    described = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "cube": 7, "ignore": 8}, "numTraining": 4}
    (nnunet / "dataset.json").write_text(json.dumps(described))
    found = find_cases(nnunet)
    assert [case.name for case in found.cases] == ["p0", "p1", "p2", "p3"]
    assert found.names == {0: "background", 7: "cube"}
    assert found.ignore == 8
    assert found.channels == 1
    (nnunet / "dataset.json").write_text(json.dumps({**described, "numTraining": 5}))
    with pytest.raises(InputError, match="says 5 training images, and there are 4"):
        find_cases(nnunet)


def test_classes_are_kept_by_value_and_name(tiny_bundle: Path) -> None:
    spec = bundles.load(tiny_bundle).spec
    assert choose_classes(spec, {0, 2}, {}).drawn == (True, False, True)
    assert choose_classes(spec, {0, 2, 9}, {}, "more").kept == (0, 1, 2, None)
    assert choose_classes(spec, {0, 2, 9}, {}, "other").kept == (0, None, None)  # whose label 2 is it?
    named = choose_classes(spec, {0, 2, 9}, {2: "Posterior", 9: "tumour"}, "other")
    assert named.kept == (0, 2, None)
    assert [entry.name for entry in choose_classes(spec, {0, 2}, {}, "other").entries] == ["background", "label 2"]
    assert choose_classes(spec, {2}, {0: "background", 2: "tumour"}, "other").kept == (0, None)
    with pytest.raises(InputError, match="'posterior' in tiny and 'tumour' here"):
        choose_classes(spec, {2}, {0: "background", 2: "tumour"}, "more")


def _other_grid(data: Path) -> None:
    image, label = blob(1)
    write(data, "p1", image, 7 * label, np.diag([2.0, 1, 1, 1]))


def _no_label(data: Path) -> None:
    (data / "labels" / "p1.nii.gz").unlink()


def _all_background(data: Path) -> None:
    for number in range(4):
        write(data, f"p{number}", blob(number)[0], np.zeros((16, 18, 20), np.uint8))


def _lying_description(data: Path) -> None:
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cube": 1}}))


def _broken_description(data: Path) -> None:
    (data / "dataset.json").write_text("{")


def _cut_off(data: Path) -> None:
    path = data / "images" / "p1.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_other_grid, "another grid"),
        (_no_label, "'p1' has no label map"),
        (_all_background, "all background"),
        (_lying_description, "value 7 is drawn, but dataset.json names no such class"),
        (_broken_description, "no JSON"),
        (_cut_off, "p1"),
    ],
)
def test_bad_data_is_a_sentence_before_training(damage, said: str, tiny_bundle: Path, data: Path, tmp_path) -> None:
    damage(data)
    with pytest.raises(NapariMambaError, match=said):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*/history.jsonl"))


def test_values_that_are_no_class_are_refused(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label values 7 are no class of tiny: pass --classes more"):
        to_end(tiny_bundle, data, tmp_path / "out", steps=1)
    with pytest.raises(InputError, match="nothing says what is background"):
        AdaptOptions(unknown=0)
    with pytest.raises(BundleError, match="exclusive classes"):
        to_end("mr-denoise", data, tmp_path / "out", steps=1)


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "mean-teacher"},
        {"scheme": "cross", "freeze": "encoder"},
        {"scheme": "supervised", "pretrain_steps": 3, "random_weights": True},
    ],
)
def test_images_without_labels_are_learnt_from(options, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for number in range(10, 13):
        write(tmp_path / "more", f"q{number}", blob(number)[0], None)
    given = {"classes": "other", "steps": 4, "unlabelled": tmp_path / "more" / "images", **options}
    stopped = to_end(tiny_bundle, data, tmp_path / "out", stop_at=2, **given)
    assert stopped.cancelled
    result = to_end(tiny_bundle, data, tmp_path / "out", resume=True, **given)
    assert result.facts["unlabelled_images"] == 3
    assert result.facts["scheme"] == options["scheme"]
    assert result.score is not None
    assert "3 images without labels" in bundles.load(tmp_path / "out").card
    kept, (own,) = bundles.load(tmp_path / "out").networks()[0].state_dict(), bundles.load(tiny_bundle).networks()
    same = {key: torch.equal(value, kept[key]) for key, value in own.state_dict().items() if ".stages.0." in key}
    encoder = [equal for key, equal in same.items() if key.startswith("encoder.")]
    assert encoder
    assert all(encoder) == (options.get("freeze") == "encoder")


def test_a_scheme_needs_what_it_learns_from(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    write(tmp_path / "more", "q1", blob(9)[0], None)
    given = {"classes": "other", "steps": 1}
    with pytest.raises(InputError, match="every voxel here has one"):
        to_end(tiny_bundle, data, tmp_path / "out", scheme="mean-teacher", **given)
    with pytest.raises(InputError, match="nothing is learnt from images without labels"):
        to_end(tiny_bundle, data, tmp_path / "out", unlabelled=tmp_path / "more", **given)
    with pytest.raises(InputError, match="no image that has no labels"):
        to_end(tiny_bundle, data, tmp_path / "out", scheme="cross", unlabelled=data, **given)
    with pytest.raises(InputError, match="no scheme 'magic'"):
        AdaptOptions(scheme="magic")
    with pytest.raises(BundleError, match=r"has no part 'tail'.*decoder, encoder"):
        to_end(tiny_bundle, data, tmp_path / "out", freeze="tail", **given)


def test_the_held_out_are_not_seen_without_labels_either(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for name in ("p0_second", "p1_second"):
        write(tmp_path / "more", name, blob(9)[0], None)
    given = {"classes": "other", "steps": 1, "scheme": "cross", "unlabelled": tmp_path / "more"}
    assert to_end(tiny_bundle, data, tmp_path / "a", **given, validation=("p0",)).facts["unlabelled_images"] == 1
    (tmp_path / "more" / "images" / "p1_second.nii.gz").unlink()
    with pytest.raises(InputError, match="of people that are held out"):
        to_end(tiny_bundle, data, tmp_path / "b", **given, validation=("p0",))


def test_sides_are_not_mirrored(tiny_bundle: Path) -> None:
    spec = bundles.load(tiny_bundle).spec
    assert not choose_classes(spec, {0, 7, 8}, {7: "anterior", 8: "posterior"}, "other").sided(())
    assert choose_classes(spec, {0, 7, 8}, {7: "Left kidney", 8: "right kidney"}, "other").sided(())
    assert choose_classes(spec, {0, 7, 8}, {}, "other").sided(())  # nobody knows
    assert not choose_classes(spec, {0, 7}, {}, "other").sided(())
    assert choose_classes(spec, {0, 1}, {}).sided((1, 2))


def test_a_full_disk_loses_nothing(tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    to_end(tiny_bundle, data, tmp_path / "out", stop_at=1, classes="other", steps=4)
    before = (work_folder(tmp_path / "out") / "checkpoint.pt").read_bytes()

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="free some space"):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=4, resume=True)
    assert (work_folder(tmp_path / "out") / "checkpoint.pt").read_bytes() == before
    assert bundles.load(tmp_path / "out").networks()


def test_a_disk_that_is_too_small_is_said_before(tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 10**7, 10**7)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OutputError, match=r"has 0\.0 GB left, and adapting may need 0\.1"):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1)
    assert not work_folder(tmp_path / "out").exists()
    assert all(NETWORKS.get(name, 1) == scheme.count for name, scheme in SCHEMES.items())


def test_a_disk_that_fills_while_images_are_written(tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"the disk refused \(No space left on device\): free some space"):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1).path is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_command_is_gone_on_with(tiny_bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    line = ["adapt", tiny_bundle, data, "-o", tmp_path / "out", "--classes", "other", "--device", "cpu"]
    command = [sys.executable, "-m", "napari_mamba", *map(str, line), "--validate-every", "1", "--events", "jsonl"]
    running = subprocess.Popen([*command, "--steps", "100000"], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for text in running.stdout:  # the checkpoint is written with each score
        event = json.loads(text)
        if event.get("score") and event["done"] and read_step(tmp_path) > 0:
            break
    running.kill()
    running.wait()
    running.stdout.close()
    step = read_step(tmp_path)
    assert 0 < step < 100000
    assert not (tmp_path / "out").exists()
    assert main([*map(str, line), "--resume", "--steps", str(step + 1)]) == 0
    assert bundles.load(tmp_path / "out").metrics["adapted"]["steps"] == step + 1


def read_step(place: Path) -> int:
    return int(read_checkpoint(work_folder(place / "out"))["step"])


def test_the_command_tells_events(tiny_bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    line = ["adapt", tiny_bundle, data, "-o", tmp_path / "out", "--classes", "other", "--steps", 2, "--device", "cpu"]
    assert main([*map(str, line), "--events", "jsonl"]) == 0
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    scored = [event for event in events if "score" in event]
    assert len(scored) == 2
    assert all(event["score"]["people"] == 1 for event in scored)
    assert any(event["event"] == "progress" and event["stage"] == "training" and event["loss"] > 0 for event in events)
    assert events[-1]["event"] == "result"
    assert events[-1]["outputs"] == {"bundle": str(tmp_path / "out")}
    assert main([*map(str, line)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_preview_is_a_label_map_on_the_images_own_grid(tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(3):
        image, label = blob(number)
        painted = np.where(np.random.default_rng(number).random(label.shape) < 0.1, 2 - label, 0).astype(np.uint8)
        write(tmp_path / "data", f"p{number}", image, painted)
    options = AdaptOptions(**QUICK, unknown=0, background=2, steps=4, validate_every=2, preview="p1")
    shown = [event.preview for event in adapt(tiny_bundle, tmp_path / "data", tmp_path / "out", options)]
    paths = [path for path in shown if path]
    assert paths
    labels, image = io.read_labels(paths[-1]), io.read(tmp_path / "data" / "images" / "p1.nii.gz")
    assert labels.volume.shape == image.shape
    np.testing.assert_allclose(labels.volume.affine, image.affine)
    assert set(np.unique(labels.volume.data)) <= {0, 1, 2}
    with pytest.raises(InputError, match="no image 'p7' to preview"):
        to_end(tiny_bundle, tmp_path / "data", tmp_path / "b", unknown=0, background=2, steps=1, preview="p7")


def test_the_box_of_a_preview_is_about_what_is_drawn(tmp_path: Path) -> None:
    labels = np.zeros((20, 22, 24), np.uint8)
    labels[5:7, 8:10, 11:14] = 1
    labels[15, 15, 15] = 9  # painted background
    write(tmp_path, "p1", labels.astype(np.float32), labels, np.diag([2.0, 1.0, 1.0, 1.0]))
    (case,) = find_cases(tmp_path).cases
    volume = io.read_labels(case.label).volume
    box = about_drawn(case, Painted(unknown=0, background=9))
    corners = np.array([[4.5, 7.5, 10.5, 1], [6.5, 9.5, 13.5, 1]]) @ volume.affine.T
    low, high = corners[:, :3].min(0) - 12, corners[:, :3].max(0) + 12
    np.testing.assert_allclose(box, [*low, *high])


def test_a_round_looks_at_few_tiles_and_the_end_at_all(
    tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(training, "MOST_TILES", 1)
    large, label = np.zeros((16, 18, 90), np.float32), np.zeros((16, 18, 90), np.uint8)
    large[:, :, 70:], label[4:12, 4:12, 72:80] = 1, 7
    write(data, "p9", large, label)
    options = AdaptOptions(**QUICK, classes="other", steps=2, patch=(16, 16, 16), validation=("p9",))
    scores = [event.score for event in adapt(tiny_bundle, data, tmp_path / "out", options) if event.score]
    assert [score.part for score in scores] == [True, True, False]
    assert "tiles far" not in bundles.load(tmp_path / "out").card


def test_an_ensemble_says_that_its_first_network_is_adapted(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    other = bundles.load(tiny_bundle)
    weights = [{k: v + number * 0.01 for k, v in other.networks()[0].state_dict().items()} for number in range(2)]
    both = bundles.save(tmp_path / "both", other.spec, weights, "# Two")
    events = [*adapt(both, data, tmp_path / "out", AdaptOptions(**QUICK, classes="other", steps=1))]
    assert [event.message for event in events if event.warning] == [
        f"{bundles.load(both).name} averages 2 networks: the first is adapted, and is the new bundle alone"
    ]
    assert len(bundles.load(tmp_path / "out").weights) == 1
