"""A row of a table beside the image: from three files of weights and a CSV to scores, equal to the networks' own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_networks import GFE, GFE_GENERATOR

from napari_mamba import bundles, io, models
from napari_mamba.bundles import Column
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import BundleError, InputError
from napari_mamba.models.tables.gfe_mamba import classify
from napari_mamba.volume import Volume

CPU = {"device": "cpu", "precision": "float32"}
COLUMNS = [
    {"name": "Sex", "values": ["F", "M"]},
    {"name": "APOE4", "values": ["0", "1", "2"]},
    {"name": "age", "mean": 70, "std": 8},
    {"name": "MMSE", "mean": 26, "std": 2},
    {"name": "education"},
]
TABLE = "id;sex;APOE4;Age;mmse;education;scan\n1;m;2.0;62;28;15;other.nii.gz\n2; F ;0;78;20;9;scans/sub-02.nii.gz\n"


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    return models.create("gfe_mamba", **GFE).eval(), models.create("gfe_mamba_generator", **GFE_GENERATOR).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory, pair):
    """The authors' three files, made into a bundle by the command, and an image with its table."""
    folder = tmp_path_factory.mktemp("tables")
    files, classifier = folder / "weights", pair[0].state_dict()
    files.mkdir()
    for part, name in (("model", "best_model.pth"), ("ft_model", "best_ft_model.pth")):
        weights = {key.removeprefix(f"{part}."): value for key, value in classifier.items()}
        torch.save({key: weights[key] for key in weights if f"{part}.{key}" in classifier}, folder / "weights" / name)
    torch.save({"model": pair[1].state_dict()}, files / "generator.pth")
    assert main(["import", str(files), "-o", str(folder / "gfe"), "--tile", "12,16,16", "--channels", "MRI",
                 "--classes", "stays,converts", "--preparation", "[]", "--columns", json.dumps(COLUMNS),
                 "--argument", "heads=2", "--argument", f"generator={json.dumps(GFE_GENERATOR)}"]) == 0  # fmt: skip
    data = np.random.default_rng(0).random((1, 12, 16, 16), np.float32)
    io.write(Volume(data, np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]]), folder / "sub-02.nii.gz")
    (folder / "people.csv").write_text(TABLE)
    return folder


@pytest.fixture(scope="module")
def bundle(place):
    return bundles.load(place / "gfe")


def test_a_row_goes_in_with_the_image_as_with_the_networks_themselves(place, bundle, pair, capsys):
    report = place / "report.json"
    command = ["run", str(place / "gfe"), str(place / "sub-02.nii.gz"), "--device", "cpu", "--precision", "float32"]
    assert main([*command, "--row", str(place / "people.csv"), "--report", str(report)]) == 0, capsys.readouterr().err
    found = json.loads(report.read_text())
    mri = torch.from_numpy(np.asarray(io.read(place / "sub-02.nii.gz").data)).permute(0, 3, 2, 1)[None]
    row = torch.tensor([[0, 0]]), torch.tensor([[1.0, -3.0, 9.0]])
    with torch.inference_mode():
        expected = classify(*pair, *row, mri)[0].softmax(1)[0]
    np.testing.assert_allclose(list(found["scores"].values()), expected, atol=1e-5)
    assert found["provenance"]["options"]["row"]["MMSE".lower()] == "20"
    assert main([*command, "--row", str(place / "people.csv"), "--row-of", "1", "--report", str(place / "o.json")]) == 0
    other = json.loads((place / "o.json").read_text())["scores"]
    assert abs(other["converts"] - found["scores"]["converts"]) > 1e-4


def test_a_case_of_a_list_brings_its_own_row(place, capsys):
    """As the server writes them."""
    row = {"Sex": "m", "APOE4": "2", "age": "62", "mmse": "28", "education": "15"}
    cases = [{"inputs": "sub-02.nii.gz", "row": row, "report": "case.json"}]
    (place / "cases.json").write_text(json.dumps(cases))
    assert main(["run", str(place / "gfe"), "--cases", str(place / "cases.json"), "--device", "cpu"]) == 0
    alone = ["run", str(place / "gfe"), str(place / "sub-02.nii.gz"), "--device", "cpu", "--row-of", "1"]
    assert main([*alone, "--row", str(place / "people.csv"), "--report", str(place / "alone.json")]) == 0
    one, other = (json.loads((place / name).read_text())["scores"] for name in ("case.json", "alone.json"))
    assert one == other
    (place / "cases.json").write_text(json.dumps([{**cases[0], "row": {"age": 62}}]))
    assert main(["run", str(place / "gfe"), "--cases", str(place / "cases.json")]) == 2
    assert "a row is an object of texts" in capsys.readouterr().err


def test_a_batch_takes_each_images_row(place):
    out = place / "out"
    command = ["batch", str(place / "gfe"), str(place / "sub-02.nii.gz"), "-o", str(out), "--device", "cpu"]
    assert main([*command, "--row", str(place / "people.csv")]) == 0
    record = next(json.loads(path.read_text()) for path in out.rglob("*.json") if "options" in path.read_text())
    assert record["provenance"]["options"]["row"]["age"[0].upper() + "ge"] == "78"


def test_what_a_row_lacks_is_told_before_and_at_the_start_of_a_run(place, bundle):
    volume, good = io.read(place / "sub-02.nii.gz"), io.row_of(place / "people.csv", "sub-02")
    assert not examine(volume, bundle, RunOptions(**CPU, row=good)).refusals
    for row, said in [
        (None, "takes a row of a table beside the image, with the columns Sex, APOE4, age, MMSE, education"),
        ({key: value for key, value in good.items() if key != "mmse"}, "says nothing of 'MMSE'"),
        (good | {"sex": "x"}, "'Sex' is 'x', which .* does not know: it knows F, M"),
        (good | {"Age": "old"}, "'age' is 'old': give one number"),
    ]:
        options = RunOptions(**CPU, row=row)
        with pytest.raises(InputError, match=said):
            run_to_end(volume, bundle, options)
        assert len(examine(volume, bundle, options).refusals) == 1
    with pytest.raises(InputError, match="takes no table"):
        run_to_end(volume, bundles.load("hippocampus-mr"), RunOptions(**CPU, row=good))


def test_a_table_that_is_none_is_told(tmp_path, place):
    for text, said in [("", "no row below"), ("id,age\n", "no row"), ("id,age\n1,2\n2,3\n", "first are of 1, 2")]:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(InputError, match=said):
            io.row_of(tmp_path / "t.csv", "sub-02")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text"):
        io.read_rows(tmp_path / "t.csv")
    with pytest.raises(InputError, match="cannot be read"):
        io.read_rows(tmp_path / "nowhere.csv")
    (tmp_path / "t.csv").write_text("id,age\nsub-02,2\nsub-02.nii.gz,3\n")
    with pytest.raises(InputError, match="2 rows of"):
        io.row_of(tmp_path / "t.csv", "sub-02.nii.gz")
    (tmp_path / "t.csv").write_text("id\tage\n9\t2\n")
    assert io.row_of(tmp_path / "t.csv", "sub-02") == {"id": "9", "age": "2"}  # there is only one


def test_a_bundle_and_its_columns_agree(bundle, tmp_path, place):
    assert bundle.columns[2] == Column("age", (), 70.0, 8.0)
    facts = {name: getattr(bundle, name) for name in bundles.BundleSpec.__dataclass_fields__}
    for columns, said in [
        ((), "say which columns"),
        (bundle.columns[:4], "its network has others"),
        ((*bundle.columns[:4], Column("Age")), "a name of its own"),
        ((*bundle.columns[:4], Column("x", std=0.0)), "std above 0"),
    ]:
        with pytest.raises(BundleError, match=said):
            bundles.BundleSpec(**facts | {"columns": columns})
    (place / "weights" / "generator.pth").rename(tmp_path / "generator.pth")
    with pytest.raises(BundleError, match="no weights of GFE-Mamba's generator"):
        bundles.import_checkpoint(place / "weights", tmp_path / "b", tile=(12, 16, 16), channels=["MRI"])
    (tmp_path / "generator.pth").rename(place / "weights" / "generator.pth")
