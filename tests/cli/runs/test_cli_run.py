"""`napari-mamba run` on good input: files, table and geometry, held to the Python call and to other readers."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_mamba import bundles, engine, io
from napari_mamba.cli.parsing import parse_tile
from napari_mamba.measure import label_agreement
from napari_mamba.volume import Volume


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A volume on an upright grid, which every format can hold."""
    data = np.random.default_rng(3).normal(100, 20, (1, 10, 16, 18)).astype(np.float32)
    return Volume(data, np.array([[0, 0, 1.0, 5], [0, 1.0, 0, -3], [1.5, 0, 0, 2], [0, 0, 0, 1]]), name="plain")


def test_every_output_appears_and_agrees_with_the_python_call(command, tiny_bundle, image, folder):
    names = ("labels.nii.gz", "overlay.png", "table.csv", "report.json", "uncertainty.nrrd", "probabilities.mha")
    labels, overlay, table, report, uncertainty, probabilities = (folder / name for name in names)
    done = command(
        *("run", tiny_bundle, image, "-o", labels, "--overlay", overlay, "--table", table, "--report", report),
        *("--uncertainty", uncertainty, "--probabilities", probabilities, "--device", "cpu"),
    )
    assert done.code == 0, done.err
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)

    options = engine.RunOptions(device="cpu", uncertainty=True, probabilities=True)
    expected = engine.run_to_end(io.read(image), bundles.load(tiny_bundle), options)
    written = nib.load(labels)
    values = np.asarray(written.dataobj)
    np.testing.assert_array_equal(values, expected.labels.data[0].transpose(2, 1, 0))
    np.testing.assert_allclose(written.affine, nib.load(image).affine, atol=1e-3)
    np.testing.assert_allclose(io.read(uncertainty).data, expected.extra["uncertainty"].data, atol=1e-5)
    np.testing.assert_allclose(io.read(probabilities).data, expected.extra["probabilities"].data, atol=1e-5)

    grey = np.asarray(nib.load(image).dataobj)
    ml = abs(np.linalg.det(written.affine[:3, :3])) / 1000
    rows = list(csv.DictReader(table.open()))
    assert [row["name"] for row in rows] == ["anterior", "posterior"]
    for row in rows:
        mask = values == int(row["index"])
        assert int(row["voxels"]) == mask.sum() > 0
        assert float(row["ml"]) == pytest.approx(mask.sum() * ml, rel=1e-4)
        assert float(row["mean_intensity"]) == pytest.approx(grey[mask].mean(), rel=1e-4)
        assert row["name"] in done.out
        assert str(mask.sum()) in done.out

    told = json.loads(report.read_text())
    assert f"computed on   {told['provenance']['device']['name']}, float32, scan by compiled CPU code" in done.out
    assert told["outputs"]["labels"] == str(labels)
    assert told["provenance"]["bundle"]["sha256"] == bundles.load(tiny_bundle).sha256
    assert told["provenance"]["options"]["device"] == "cpu"
    assert [row["voxels"] for row in told["table"]] == [int(row["voxels"]) for row in rows]

    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(overlay)))
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert (picture[..., 0].astype(int) != picture[..., 2]).any(), "no colour lies over the grey image"


def test_class_names_are_in_the_label_file(command, tiny_bundle, image, folder):
    assert command("run", tiny_bundle, image, "-o", folder / "labels.nii.gz").code == 0
    extensions = nib.load(folder / "labels.nii.gz").header.extensions
    text = b"".join(extension.content for extension in extensions).decode()
    assert "anterior" in text
    assert "posterior" in text


def test_several_files_are_channels_in_the_order_given(command, tiny_bundle_2, volume, folder):
    first = io.write(volume, folder / "t1.nii.gz")
    second = io.write(volume.with_data(volume.data[..., ::-1].copy()), folder / "flair.nii.gz")
    assert command("run", tiny_bundle_2, first, second, "-o", folder / "labels.nii.gz").code == 0
    assert command("run", tiny_bundle_2, second, first, "-o", folder / "swapped.nii.gz").code == 0
    expected = engine.run_to_end(io.read([first, second]), bundles.load(tiny_bundle_2))
    labels = io.read(folder / "labels.nii.gz").data
    np.testing.assert_array_equal(labels, expected.labels.data)
    assert (labels != io.read(folder / "swapped.nii.gz").data).any()


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".tif", ".zarr"])
def test_formats_give_the_same_labels(command, tiny_bundle, plain, folder, suffix):
    reference = engine.run_to_end(plain, bundles.load(tiny_bundle)).labels
    given = io.write(plain, folder / f"image{suffix}")
    done = command("run", tiny_bundle, given, "-o", folder / f"labels{suffix}")
    assert done.code == 0, done.err
    labels = io.read(folder / f"labels{suffix}")
    np.testing.assert_array_equal(np.asarray(labels.data), reference.data)


def test_a_folder_of_dicom_slices_comes_back_in_its_place(command, tiny_bundle, shared_dir, tmp_path, folder):
    slices = tmp_path / "series"
    slices.mkdir()
    for file in sorted((shared_dir / "data/dicom_mr").glob("*.dcm"))[:6]:
        (slices / file.name).symlink_to(file)
    done = command(
        *("run", tiny_bundle, slices, "-o", folder / "labels.nii.gz"),
        *("--tile", "6,192,192", "--overlap", "0", "--no-mirror"),
    )
    assert done.code == 0, done.err
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(slices)))
    series, labels = reader.Execute(), sitk.ReadImage(str(folder / "labels.nii.gz"))
    for corner in np.ndindex(2, 2, 2):
        index = [int(c * (n - 1)) for c, n in zip(corner, series.GetSize(), strict=True)]
        place = series.TransformIndexToPhysicalPoint(index)
        nearest = np.round(labels.TransformPhysicalPointToContinuousIndex(place))
        apart = np.subtract(labels.TransformContinuousIndexToPhysicalPoint(nearest.tolist()), place)
        assert np.linalg.norm(apart) < 1e-3
        assert all(0 <= i < n for i, n in zip(nearest, labels.GetSize(), strict=True))


def test_labels_of_a_dicom_series_become_a_dicom_segmentation(command, tiny_bundle, shared_dir, tmp_path, folder):
    slices = tmp_path / "series"
    slices.mkdir()
    for file in sorted((shared_dir / "data/dicom_mr").glob("*.dcm"))[:6]:
        (slices / file.name).symlink_to(file)
    how = ("--tile", "6,192,192", "--overlap", "0", "--no-mirror")
    for name in ("labels.dcm", "labels.nii.gz"):
        done = command("run", tiny_bundle, slices, "-o", folder / name, *how)
        assert done.code == 0, done.err
    segmentation, labels = (io.read_labels(folder / name) for name in ("labels.dcm", "labels.nii.gz"))
    assert [entry.name for entry in segmentation.classes] == ["anterior", "posterior"]
    assert label_agreement(labels.volume, segmentation.volume)[0].dice == 1


def test_options_reach_the_engine(command, tiny_bundle, image, folder):
    report = folder / "report.json"
    done = command(
        *("run", tiny_bundle, image, "-o", folder / "labels.nii.gz", "--report", report, "--tile", "8x16x16"),
        *("--overlap", "0.25", "--no-mirror", "--batch-size", "2", "--precision", "float32", "--device", "cpu"),
    )
    assert done.code == 0, done.err
    told = json.loads(report.read_text())["provenance"]["options"]
    assert told["tile"] == [8, 16, 16]
    assert (told["overlap"], told["mirror"], told["batch_size"], told["precision"]) == (0.25, False, 2, "float32")


def test_an_output_is_replaced_only_when_asked(command, tiny_bundle, image, folder):
    target = folder / "labels.nii.gz"
    target.write_bytes(b"mine")
    refused = command("run", tiny_bundle, image, "-o", target)
    assert refused.code == 2
    assert "--overwrite" in refused.error
    assert target.read_bytes() == b"mine"
    assert command("run", tiny_bundle, image, "-o", target, "--overwrite").code == 0
    assert nib.load(target).shape == nib.load(image).shape


def test_warnings_of_the_run_are_told(command, tiny_bundle, volume, folder):
    negative = io.write(volume.with_data(volume.data - 150), folder / "negative.nii.gz")
    done = command("run", tiny_bundle, negative, "-o", folder / "labels.nii.gz")
    assert done.code == 0
    assert "warning: The channel T1 should be MR" in done.err


@pytest.mark.parametrize(("text", "tile"), [("48", 48), ("8,16,32", (8, 16, 32)), ("16X32", (16, 32)), (None, None)])
def test_tiles_are_read_from_text(text, tile):
    assert parse_tile(text) == tile
