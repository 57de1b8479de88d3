"""`napari-mamba explain`: files, events and sentences."""

import json

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.cli import main
from napari_mamba.cli.commands.explain import numbers, slicer_curve
from napari_mamba.volume import Volume

LAYER = "encoder.mamba_layers.1.mamba"


@pytest.fixture
def scan(tmp_path, rng, oblique_affine):
    data = rng.normal(100, 10, (1, 14, 20, 18)).astype(np.float32)
    data[0, 4:9, 5:15, 6:12] += 80
    return io.write(Volume(data, affine=oblique_affine), tmp_path / "scan.nii.gz")


def test_maps_paths_and_a_figure_are_written(tiny_bundle, scan, tmp_path, capsys):
    out = tmp_path / "out"
    what = "order,state,attention,relevance"
    arguments = ["explain", str(tiny_bundle), str(scan), "-o", str(out), "--what", what, "--voxel", "6,9,8"]
    assert main([*arguments, "--events", "jsonl"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    maps = {event["name"]: event for event in events if event["event"] == "map"}
    assert {"state", "attention drawn", "relevance", "path 1 curve", "figure"} <= set(maps)
    assert maps["path 1 curve"]["kind"] == "curve"
    assert events[-1]["event"] == "result"
    fractions = [event["fraction"] for event in events if event["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert len({round(share, 2) for share in fractions}) > 4, "the share done grows with each map"
    assert events[-1]["provenance"]["bundle"]["name"] == tiny_bundle.name
    assert len(events[-1]["provenance"]["bundle"]["sha256"]) == 64
    given = io.read(scan)
    for name in ("state", "order 1", "attention drawn", "relevance"):
        volume = io.read(maps[name]["path"])
        assert volume.shape == given.shape
        np.testing.assert_allclose(volume.affine, given.affine, atol=1e-5)
    rows = np.loadtxt(out / "path_1.csv", delimiter=",", skiprows=1)
    curve = json.loads((out / "path_1.mrk.json").read_text())["markups"][0]
    assert curve["coordinateSystem"] == "RAS"
    np.testing.assert_allclose(curve["controlPoints"][0]["position"], rows[0, 1:], atol=1e-3)
    facts = json.loads((out / "facts.json").read_text())
    assert facts["voxel"] == [6, 9, 8]
    assert facts["relevance"]["missing"] < 1e-4
    assert (out / "figure.png").stat().st_size > 1000
    assert main(arguments) == 2
    assert "already there" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_a_point_in_the_world_and_another_format(tiny_bundle, scan, tmp_path, capsys):
    volume = io.read(scan)
    x, y, z = (volume.affine @ [6, 9, 8, 1])[:3]
    world = f"--world={x:.2f},{y:.2f},{z:.2f}"
    out = tmp_path / "out"
    options = ["-o", str(out), world, "--format", "ome-zarr", "--layer", "encoder.mamba_layers.0.mamba"]
    assert main(["explain", str(tiny_bundle), str(scan), "--what", "attention", *options]) == 0
    assert io.read(out / "attention_drawn.ome.zarr").shape == volume.shape
    assert json.loads((out / "facts.json").read_text())["voxel"] == [6, 9, 8]


def test_curves_regions_and_the_whole_image(tiny_bundle, scan, tmp_path, capsys):
    volume = io.read(scan)
    regions = np.zeros((1, *volume.shape), np.uint8)
    regions[0, :7], regions[0, 7:] = 1, 2
    drawn = io.write(volume.with_data(regions), tmp_path / "regions.nii.gz")
    out = tmp_path / "out"
    what = "knockout,faithfulness,gradient"
    options = ["-o", str(out), "--what", what, "--regions", str(drawn), "--whole"]
    assert main(["explain", str(tiny_bundle), str(scan), *options]) == 0
    facts = json.loads((out / "facts.json").read_text())
    assert facts["knockout"]["cuts"] >= 1
    assert facts["tiles"] >= 1
    header, *rows = (out / "deletion_curve.csv").read_text().split()
    assert header == "share,relevance,gradient,integrated"
    assert rows[0].startswith("0,1,1,1")
    assert (out / "insertion_curve.csv").exists()
    assert io.read(out / "knockout.nii.gz").shape == volume.shape
    affine = volume.affine.copy()
    affine[:3, 3] += 5
    other = io.write(Volume(regions, affine=affine), tmp_path / "moved.nii.gz")
    assert main(["explain", str(tiny_bundle), str(scan), "-o", str(tmp_path / "x"), "--regions", str(other)]) == 2
    assert "image's grid" in capsys.readouterr().err


def test_layers_and_maps_are_listed(tiny_bundle, scan, tmp_path, capsys):
    assert main(["explain", str(tiny_bundle), str(scan), "-o", str(tmp_path / "x"), "--list"]) == 0
    shown = capsys.readouterr().out
    assert "attention" in shown
    assert "mamba_layers.0.mamba" in shown
    assert not (tmp_path / "x").exists()
    words = ["explain", str(tiny_bundle), str(scan), "-o", str(tmp_path / "x"), "--list", "--events", "jsonl"]
    assert main(words) == 0
    *_, listed, result = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed["event"], result["event"], result["outputs"]) == ("list", "result", {})
    names = [layer["name"] for layer in listed["layers"]]
    assert names
    assert all(name in shown for name in names)
    assert {one["of"] for one in listed["maps"]} == {"layer", "voxel", "class"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--what", "dreams"], "no map 'dreams'"),
        (["--voxel", "1,2"], "three numbers, z,y,x"),
        (["--voxel", "1,2,3", "--world", "1,2,3"], "give one of them"),
        (["--voxel", "99,2,3"], "outside of the image"),
        (["--layer", "nothing"], "no scanning layer"),
        (["--what", "attention", "--direction", "4"], "scans along 1 path: choose 1"),
        (["--what", "relevance", "--class", "liver"], "no class 'liver'"),
        (["--format", "dicom"], "--format dicom"),
        (["--member", "3"], "has 1 network: leave the member out"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tiny_bundle, scan, tmp_path, capsys, more, said):
    assert main(["explain", str(tiny_bundle), str(scan), "-o", str(tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in error


def test_maps_that_are_there_are_found_before_anything_is_computed(tiny_bundle, scan, tmp_path, capsys, monkeypatch):
    from napari_mamba.explain import maps

    monkeypatch.setattr(maps, "explaining", lambda *_, **__: pytest.fail("computed first"))
    (tmp_path / "facts.json").write_text("{}")
    assert main(["explain", str(tiny_bundle), str(scan), "-o", str(tmp_path)]) == 2
    assert "facts.json is already there: add --overwrite" in capsys.readouterr().err


def test_a_long_path_is_thinned_for_slicer():
    points = np.random.default_rng(0).random((20000, 3))
    controls = json.loads(slicer_curve(points, "path"))["markups"][0]["controlPoints"]
    assert len(controls) == 5000
    np.testing.assert_allclose(controls[-1]["position"], points[-1], atol=1e-4)
    assert numbers(None, "--voxel") is None
