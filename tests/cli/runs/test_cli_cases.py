"""Several cases in one process, a region, channels on other grids, and a stdout that nothing else can reach."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest

from napari_mamba import engine, io
from napari_mamba.bundles.bundle import Bundle


def lines(text: str) -> list[dict]:
    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


@pytest.fixture
def cases(tmp_path, image, folder):
    def write(*items):
        path = tmp_path / "cases.json"
        path.write_text(json.dumps(list(items)), encoding="utf-8")
        return path

    return write


def test_a_failed_case_does_not_end_the_others(command, cases, tiny_bundle, image, folder, monkeypatch):
    built = []
    real = Bundle.networks
    monkeypatch.setattr(Bundle, "networks", lambda self: built.append(self.name) or real(self))
    damaged = folder / "damaged.nii.gz"
    damaged.write_bytes(b"no image")
    listed = cases(
        {"name": "first", "inputs": [str(image)], "output": str(folder / "a.nii.gz")},
        {"name": "broken", "inputs": [str(damaged)], "output": str(folder / "b.nii.gz")},
        {"name": "last", "inputs": str(image), "output": str(folder / "c.nii.gz"), "table": str(folder / "c.csv")},
    )
    done = command("run", tiny_bundle, "--cases", listed, "--events", "jsonl")
    assert done.code == 4
    events = lines(done.out)
    assert [(e["case"], e["name"], e["count"]) for e in events if e["event"] == "case"] == [
        (0, "first", 3),
        (1, "broken", 3),
        (2, "last", 3),
    ]
    ends = [(e["event"], e["case"]) for e in events if e["event"] in ("result", "error")]
    assert ends == [("result", 0), ("error", 1), ("result", 2)]
    assert events[-1] == {"version": 2, "event": "end", "done": 2, "failed": 1, "cancelled": 0}
    assert built == [tiny_bundle.name], "weights are read once"
    one, two = (np.asarray(nibabel.load(folder / name).dataobj) for name in ("a.nii.gz", "c.nii.gz"))
    assert np.array_equal(one, two)
    assert not (folder / "b.nii.gz").exists()


def test_the_share_done_never_falls_and_ends_at_one(command, cases, tiny_bundle, image, folder):
    listed = cases(*({"inputs": [str(image)], "output": str(folder / f"{i}.nii.gz")} for i in range(3)))
    events = lines(command("run", tiny_bundle, "--cases", listed, "--events", "jsonl").out)
    shares = [event["fraction"] for event in events if event["event"] == "progress"]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.95 < shares[-1] <= 1
    by_case = [max(e["fraction"] for e in events if e["event"] == "progress" and e["case"] == i) for i in range(3)]
    assert by_case[0] <= 1 / 3 + 1e-3 < by_case[1] <= 2 / 3 + 1e-3
    assert any(event["seconds_left"] for event in events if event["event"] == "progress")


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"output": "a.nii.gz"}, "no inputs"),
        ({"inputs": ["a.nii.gz"], "outptu": "b.nii.gz"}, "'outptu'"),
        ({"inputs": ["a.nii.gz"], "region": [1, 2]}, "six numbers"),
        ({"inputs": ["a.nii.gz"], "level": "finest"}, "level"),
        ("a.nii.gz", "no object"),
    ],
)
def test_a_case_that_is_none_is_told(command, cases, tiny_bundle, item, said):
    done = command("run", tiny_bundle, "--cases", cases(item), "--events", "jsonl")
    assert done.code == 2
    assert said in done.error
    (event,) = lines(done.out)
    assert (event["event"], event["kind"]) == ("error", "input")


def test_warnings_come_when_they_arise(command, tiny_bundle, volume, folder):
    negative = io.write(volume.with_data(volume.data - 150), folder / "negative.nii.gz")
    events = lines(command("run", tiny_bundle, negative, "-o", folder / "l.nii.gz", "--events", "jsonl").out)
    kinds = [event["event"] if event["event"] != "progress" else event["stage"] for event in events]
    assert kinds.index("warning") < kinds.index("network")
    assert kinds.count("warning") == 1


def test_native_libraries_cannot_reach_stdout(tiny_bundle, image, folder):
    """What C code writes to descriptor 1 goes to stderr, and comes back after the events."""
    code = (
        "import os, sys\n"
        "from napari_mamba import engine\n"
        "from napari_mamba.cli import main\n"
        "real = engine.run_to_end\n"
        "def chatty(*a, **k):\n"
        "    os.write(1, b'from C\\n'); print('from Python'); os.system('echo from a child')\n"
        "    return real(*a, **k)\n"
        "engine.run_to_end = chatty\n"
        "code = main(sys.argv[1:])\n"
        'os.write(1, b\'{"event": "after"}\\n\')\n'
        "sys.exit(code)\n"
    )
    line = [sys.executable, "-c", code, "run", str(tiny_bundle), str(image), "-o", str(folder / "l.nii.gz")]
    done = subprocess.run([*line, "--events", "jsonl"], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    events = lines(done.stdout.decode())
    assert [event["event"] for event in events[-2:]] == ["result", "after"]
    for said in (b"from C", b"from Python", b"from a child"):
        assert said in done.stderr


def test_not_a_number_is_null(command, tiny_bundle, image, folder, monkeypatch):
    real = engine.run_to_end

    def odd(*arguments, **keywords):
        result = real(*arguments, **keywords)
        result.provenance["loss"] = float("nan")
        result.provenance["most"] = np.float32("inf")
        return result

    monkeypatch.setattr(engine, "run_to_end", odd)
    report = folder / "report.json"
    done = command("run", tiny_bundle, image, "-o", folder / "l.nii.gz", "--report", report, "--events", "jsonl")
    provenance = lines(done.out)[-1]["provenance"]
    assert (provenance["loss"], provenance["most"]) == (None, None)
    assert lines(report.read_text().replace("\n", " "))[0]["provenance"]["loss"] is None


def test_as_a_module(tiny_bundle):
    done = subprocess.run([sys.executable, "-m", "napari_mamba", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("napari-mamba ")


def test_region_keeps_the_grid_and_leaves_the_rest_background(command, tiny_bundle, volume, image, folder):
    """The expectation is made of nibabel's affine alone."""
    centre = nibabel.affines.apply_affine(nibabel.load(image).affine, np.array(volume.shape[::-1]) / 2)
    box = [*(centre - 6), *(centre + 6)]
    text = ",".join(f"{value:.4f}" for value in box)
    for name, extra in (("whole", []), ("part", [f"--region={text}"])):
        done = command(
            *("run", tiny_bundle, image, "-o", folder / f"{name}.nii.gz"),
            *("--probabilities", folder / f"{name}_p.nrrd", "--report", folder / f"{name}.json", *extra),
        )
        assert done.code == 0, done.err
    whole, part = nibabel.load(folder / "whole.nii.gz"), nibabel.load(folder / "part.nii.gz")
    assert np.allclose(whole.affine, part.affine)
    assert whole.shape == part.shape
    index = np.stack(np.meshgrid(*(np.arange(n) for n in part.shape), indexing="ij"), -1)
    world = nibabel.affines.apply_affine(part.affine, index)
    inside = ((world >= np.array(box[:3]) - 1e-3) & (world <= np.array(box[3:]) + 1e-3)).all(-1)
    labels = np.asarray(part.dataobj)
    assert labels[inside].any()
    assert not labels[~inside].any()
    probabilities = io.read(folder / "part_p.nrrd").data.T
    assert (probabilities[~inside] == [1, 0, 0]).all()
    told = json.loads((folder / "part.json").read_text())
    assert sum(row["voxels"] for row in told["table"]) == np.count_nonzero(labels)
    assert np.allclose(told["provenance"]["region"]["box"], box, atol=1e-3)


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d,e,f", "0,0,0,0,5,5", "900,900,900,950,950,950"])
def test_a_region_that_is_none_is_told(command, tiny_bundle, image, folder, text):
    done = command("run", tiny_bundle, image, "-o", folder / "l.nii.gz", f"--region={text}")
    assert done.code == 2
    assert "region" in done.error
    assert not list(folder.iterdir())


def test_channels_are_laid_onto_the_first_grid(command, tiny_bundle_2, volume, image, folder, tmp_path):
    other = tmp_path / "input" / "other.nii.gz"
    affine = np.diag([2.0, 1.5, 1.5, 1.0])
    low = nibabel.load(image).affine @ [0, 0, 0, 1]
    affine[:3, 3] = np.asarray(low)[:3] - 15
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).normal(100, 9, (30, 40, 60)).astype("f4"), affine), other)
    said = command("run", tiny_bundle_2, image, other, "-o", folder / "l.nii.gz").error
    assert "--resample-channels" in said
    done = command("run", tiny_bundle_2, image, other, "-o", folder / "l.nii.gz", "--resample-channels")
    assert done.code == 0, done.err
    assert np.allclose(nibabel.load(folder / "l.nii.gz").affine, nibabel.load(image).affine, atol=1e-4)
