"""`dvh` and `dose`: tables, goals and files from the command, and what is refused."""

import csv
import importlib.util
import json
import re

import numpy as np
import pytest
import torch

from napari_mamba import bundles, io, models
from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.radiotherapy.dicom.rtdose import write_dose
from napari_mamba.radiotherapy.planning import GRID
from napari_mamba.recipes.dose.task import HEAD_NECK
from napari_mamba.volume import Volume

SHAPE = (24, 30, 30)


@pytest.fixture
def files(tmp_path):
    """A CT, two doses and a label map of a target, a cord and a parotid, on one grid."""
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = -4, -4, 2.5, 1
    _, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    body = np.hypot(x - 15, y - 15) < 13
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:16, 12:18, 12:18], labels[:, 22:25, 14:16], labels[8:14, 13:17, 5:8] = 1, 2, 3
    dose = (70 - 3 * np.hypot(x - 15, y - 15)).clip(0) * body

    def write(name, values):
        return io.write(Volume(values[np.newaxis].astype(np.float32), affine), tmp_path / f"{name}.nii.gz")

    ct = np.where(body, 20 + 600 * (labels == 2), -1000)
    return {
        "ct": write("ct", ct), "labels": write("labels", labels), "dose": write("dose", dose),
        "other": write("other", dose * 1.02),
    }  # fmt: skip


NAMES = "1=PTV70,2=spinal cord,3=right parotid"


@pytest.mark.parametrize(
    ("place", "more", "says"),
    [
        ("gone/t.csv", (), "create it first"),
        ("there.csv", (), "add --overwrite"),
        ("folder", ("--overwrite",), "a folder of that name is there"),
    ],
)
def test_a_place_for_the_table_that_will_not_do(command, files, tmp_path, place, more, says):
    (tmp_path / "there.csv").write_text("years of work")
    (tmp_path / "folder").mkdir()
    outcome = command("dvh", files["dose"], files["labels"], "--names", NAMES, "--table", tmp_path / place, *more)
    assert outcome.code == 2
    assert says in outcome.err
    assert not outcome.out
    assert (tmp_path / "there.csv").read_text() == "years of work"


def test_a_table_goals_and_files(command, files, tmp_path):
    (tmp_path / "goals.csv").write_text("structure,measure,relation,limit\nspinal cord,max,<=,50\nPTV70,D99,>=,69\n")
    table, curves, picture = (tmp_path / name for name in ("t.csv", "c.csv", "p.png"))
    outcome = command(
        "dvh", files["dose"], files["labels"], "--names", NAMES, "--goals", tmp_path / "goals.csv", "--table", table,
        "--curves", curves, "--picture", picture,
    )  # fmt: skip
    assert outcome.code == 0
    assert re.split(" {2,}", outcome.out.splitlines()[0]) == [
        "structure", "D99, Gy", "D95, Gy", "D50, Gy", "D1, Gy", "D0.1cc, Gy", "mean, Gy", "volume, cm³"
    ]  # fmt: skip
    assert any(line.startswith("met ") and "spinal cord" in line for line in outcome.out.splitlines())
    assert any(line.startswith("NOT MET") and "PTV70" in line for line in outcome.out.splitlines())
    rows = list(csv.DictReader(table.open()))
    labels, dose = (np.asarray(io.read(files[name]).data[0]) for name in ("labels", "dose"))
    assert [row["structure"] for row in rows] == ["PTV70", "spinal cord", "right parotid"]
    assert float(rows[1]["mean"]) == pytest.approx(dose[labels == 2].mean(), rel=1e-4)
    assert next(csv.reader(curves.open())) == ["dose_Gy", "PTV70", "spinal cord", "right parotid"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_doses(command, files, tmp_path):
    apart, goals = tmp_path / "apart.nii.gz", tmp_path / "goals.csv"
    goals.write_text("structure,measure,relation,limit\nPTV70,mean,>=,63.6\n")
    outcome = command(
        "dvh", files["other"], files["labels"], "--names", NAMES, "--against", files["dose"], "--difference", apart,
        "--goals", goals,
    )  # fmt: skip
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines() if " mean >= 63.6" in line] == ["met", "NOT"]
    if importlib.util.find_spec("pymedphys"):
        assert "gamma 3%/3 mm: 100.0%" in outcome.out
    else:
        assert "no gamma index is given: the gamma index needs PyMedPhys" in outcome.err
    assert "other.nii.gz" in outcome.out
    assert float(io.read(apart).data.max()) == pytest.approx(1.4, abs=0.1)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--unit", "mGy"], "not in 'mGy'"),
        (["--names", "PTV"], "names no label"),
        (["--gamma", "3", "--against", "IMAGE"], "write 3,3"),
        (["--gamma", "2,2"], "--gamma needs a second dose"),
        (["--difference", "d.nii.gz"], "--against"),
        (["--goals", "nothing.csv"], "goals"),
        (["--image", "IMAGE"], "Hounsfield"),
    ],
)
def test_refused(command, files, more, says):
    more = [str(files["dose"]) if word == "IMAGE" else word for word in more]
    outcome = command("dvh", files["dose"], files["labels"], *more)
    assert outcome.code == 2
    assert says in outcome.error


def test_a_ct_is_no_dose(command, files):
    outcome = command("dvh", files["ct"], files["labels"])
    assert outcome.code == 2
    assert "never negative" in outcome.error


def test_nothing_is_replaced_unasked(command, files, tmp_path):
    (tmp_path / "t.csv").write_text("mine")
    outcome = command("dvh", files["dose"], files["labels"], "--table", tmp_path / "t.csv")
    assert outcome.code == 2
    assert (tmp_path / "t.csv").read_text() == "mine"


@pytest.fixture
def bundle(tmp_path):
    network = {
        "spatial_dims": 3, "input_channels": 14, "num_classes": 1, "features_per_stage": [4, 8], "kernel_sizes": 3,
        "strides": [1, 2], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "input_size": [8, 8, 8],
        "first_scan": 1,
    }  # fmt: skip
    arguments = {"network": "umamba_enc", "arguments": network, "least": [8, 8, 8], "unit": [2, 2, 2], "steps": 4}
    spec = BundleSpec(
        name="dose-test", version="1.0.0", title="Dose", task="dose", network=Network("fluence_dose", arguments),
        channels=tuple(Channel(name, "RTSTRUCT" if n else "CT") for n, name in enumerate(HEAD_NECK.channels)),
        preparation=({"step": "planning_grid", **GRID},), tile=Tile((8, 8, 8), fixed=True), planning=HEAD_NECK,
    )  # fmt: skip
    torch.manual_seed(0)
    return bundles.save(tmp_path / "bundle", spec, [models.create("fluence_dose", **arguments).state_dict()])


def test_a_dose_from_a_ct_and_its_structures(command, files, bundle, tmp_path):
    out = tmp_path / "predicted.nii.gz"
    outcome = command("dose", bundle, files["ct"], files["labels"], "--names", NAMES, "-o", out, "--device", "cpu")
    assert outcome.code == 0
    assert "Not for clinical use" in outcome.out
    assert "note: nobody drew the brainstem" in outcome.err
    dose, labels, ct = (np.asarray(io.read(path).data[0]) for path in (out, files["labels"], files["ct"]))
    assert dose[labels == 1].mean() > 50 > 30 > dose[labels == 2].mean()
    assert dose[ct < -500].max() == 0
    again = command("dose", bundle, files["ct"], files["labels"], "--names", NAMES, "-o", tmp_path / "d.dcm")
    assert again.code == 0
    read = command("dvh", tmp_path / "d.dcm", files["labels"], "--names", NAMES)
    assert read.code == 0
    assert read.out.splitlines()[1] == outcome.out.splitlines()[1]


def test_a_report_says_what_ran_and_what_a_planner_was_told(command, files, bundle, tmp_path):
    out, report = tmp_path / "d.nii.gz", tmp_path / "report.json"
    outcome = command("dose", bundle, files["ct"], files["labels"], "--names", NAMES, "-o", out, "--report", report)
    assert outcome.code == 0
    told = json.loads(report.read_text())
    assert told["provenance"]["bundle"]["name"] == "dose-test"
    assert told["provenance"]["bundle"]["sha256"] == bundles.load(bundle).sha256
    assert any("nobody drew the brainstem" in note for note in told["notes"])
    assert told["inputs"]["structures"] == str(files["labels"])


def test_events_tell_a_program_how_a_dose_went(command, files, bundle, tmp_path):
    out = tmp_path / "d.nii.gz"
    given = [bundle, files["ct"], files["labels"], "--names", NAMES, "-o", out, "--device", "cpu", "--events", "jsonl"]
    outcome = command("dose", *given)
    assert outcome.code == 0
    events = [json.loads(line) for line in outcome.out.splitlines()]
    assert {event["event"] for event in events} == {"progress", "warning", "result"}
    assert any("Nobody drew the brainstem" in event["message"] for event in events if event["event"] == "warning")
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    result = events[-1]
    assert result["outputs"] == {"dose": str(out)}
    assert "Not for clinical use" in result["warnings"][-1]
    plain = command("dvh", out, files["labels"], "--names", NAMES, "--table", tmp_path / "t.csv")
    assert plain.code == 0
    target = next(row for row in result["structures"] if row["structure"] == "PTV70")
    assert f"{target['mean']:.2f}" in plain.out.splitlines()[1]
    failed = command("dose", *given)
    assert failed.code == 2
    last = json.loads(failed.out.splitlines()[-1])
    assert (last["event"], last["kind"], last["exit_code"]) == ("error", "output", failed.code)


def test_a_dose_bundle_is_not_run_on_an_image(command, files, bundle, tmp_path):
    outcome = command("run", bundle, files["ct"], "-o", tmp_path / "d.nii.gz")
    assert outcome.code == 2
    assert "napari-mamba dose dose-test CT STRUCTURES" in outcome.error


def test_a_bundle_of_another_kind_predicts_no_dose(command, files, tmp_path):
    outcome = command("dose", "mr-denoise", files["ct"], files["labels"], "-o", tmp_path / "d.nii.gz")
    assert outcome.code == 2
    assert "mr-denoise predicts no dose" in outcome.error


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--names", "1=PTV,2=spinal cord,3=right parotid"], "no prescription"),
        (["--names", NAMES, "--prescription", "PTV70"], "prescribes nothing"),
        (["--names", NAMES, "--prescription", "PTV70=-70"], "-70 Gy"),
        (["--names", "1=prostate,2=bladder,3=rectum"], "no structure is a target"),
        (["--names", "1=PTV70,2=bladder,3=rectum"], "head and neck"),
    ],
)
def test_doses_that_are_refused(command, files, bundle, tmp_path, more, says):
    outcome = command("dose", bundle, files["ct"], files["labels"], "-o", tmp_path / "d.nii.gz", *more)
    assert outcome.code == 2
    assert says in outcome.error
    assert not (tmp_path / "d.nii.gz").exists()


def test_a_prescription_by_hand(command, files, bundle, tmp_path):
    outcome = command(
        "dose", bundle, files["ct"], files["labels"], "--names", "1=tumour,2=spinal cord,3=right parotid",
        "--prescription", "tumour=60Gy", "-o", tmp_path / "d.nii.gz",
    )  # fmt: skip
    assert outcome.code == 0


def test_a_bundle_of_another_kind(command, files, tmp_path):
    outcome = command("dose", "mr-quality", files["ct"], files["labels"], "-o", tmp_path / "d.nii.gz")
    assert outcome.code == 2
    assert "predicts no dose" in outcome.error


def test_labels_become_contours_that_measure_the_same(command, files, tmp_path):
    contours = tmp_path / "s.dcm"
    outcome = command("rtstruct", files["labels"], "--names", NAMES, "-o", contours)
    assert (outcome.code, outcome.out.strip()) == (0, str(contours))
    tables = [
        command("dvh", files["dose"], structures, "--names", NAMES).out for structures in (files["labels"], contours)
    ]
    assert tables[0] == tables[1]


def test_contours_become_masks_and_a_label_map_and_measure_the_same(command, files, tmp_path):
    contours, masks, labels = (tmp_path / name for name in ("s.dcm", "masks", "s.seg.nrrd"))
    assert command("rtstruct", files["labels"], "--names", NAMES, "-o", contours).code == 0
    for output in (masks, labels):
        outcome = command("rtstruct", contours, "--image", files["ct"], "-o", output)
        assert (outcome.code, outcome.out.strip()) == (0, str(output))
    outcome = command("rtstruct", contours, "-o", tmp_path / "own")
    assert (outcome.code, "masks are on a grid of their own" in outcome.err) == (0, True)
    assert sorted(path.name for path in masks.iterdir()) == [
        "PTV70.nii.gz", "right_parotid.nii.gz", "spinal_cord.nii.gz"
    ]  # fmt: skip
    tables = [sorted(command("dvh", files["dose"], one).out.splitlines()[1:]) for one in (contours, masks, labels)]
    assert tables[0] == tables[1] == tables[2]


def test_overlapping_contours_are_no_label_map(command, files, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    labels = io.read(files["labels"])
    for name, numbers in (("PTV70", (1,)), ("Body", (1, 2, 3))):
        mask = np.isin(np.asarray(labels.data), numbers).astype(np.uint8)
        io.write(labels.with_data(mask), masks / f"{name}.nii.gz")
    outcome = command("rtstruct", masks, "--image", files["ct"], "-o", tmp_path / "all.seg.nrrd")
    assert outcome.code == 2
    assert "overlap" in outcome.error


def test_structures_in_two_files_that_disagree(command, files, bundle, tmp_path):
    labels = io.read(files["labels"])
    moved = io.write(labels.with_data(np.roll(np.asarray(labels.data), 3, 2)), tmp_path / "moved.nii.gz")
    outcome = command("dvh", files["dose"], files["labels"], moved, "--names", NAMES)
    assert outcome.code == 2
    assert "two files disagree about 'PTV70'" in outcome.error
    outcome = command("dose", bundle, files["ct"], files["labels"], moved, "--names", NAMES, "-o", tmp_path / "d.dcm")
    assert outcome.code == 2
    assert "two files disagree about 'PTV70'" in outcome.error


def test_a_dose_and_structures_of_two_frames_of_reference(command, files, tmp_path):
    contours, dose = tmp_path / "s.dcm", tmp_path / "d.dcm"
    assert command("rtstruct", files["labels"], "--names", NAMES, "-o", contours).code == 0
    write_dose(io.read(files["dose"]), dose)
    outcome = command("dvh", dose, contours)
    assert outcome.code == 2
    assert "another frame of reference" in outcome.error


def test_a_dose_whose_height_does_not_fit_the_prescription(command, files):
    outcome = command("dvh", files["dose"], files["labels"], "--names", NAMES, "--unit", "cGy")
    assert outcome.code == 0
    assert "where 70 Gy are prescribed: check its unit" in outcome.err


@pytest.mark.parametrize(
    ("output", "says"), [("s.doc", ".dcm"), ("labels.dcm", "already there"), ("new.dcm", "--image")]
)
def test_contours_that_are_not_written(command, files, tmp_path, output, says):
    (tmp_path / "labels.dcm").write_bytes(b"mine")
    source = tmp_path if output == "new.dcm" else files["labels"]
    outcome = command("rtstruct", source, "-o", tmp_path / output)
    assert outcome.code == 2
    assert says in outcome.error
