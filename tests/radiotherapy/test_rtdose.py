"""RTDOSE: grids and values that come back, and files that are refused."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from napari_mamba.errors import InputError, OutputError
from napari_mamba.radiotherapy.dicom.reference import read_reference
from napari_mamba.radiotherapy.dicom.rtdose import notes_of, plan_of, read_dose, write_dose
from napari_mamba.volume import Volume


@pytest.fixture
def dose(image, rng) -> Volume:
    return image.with_data(rng.uniform(0, 72, (1, *image.shape)).astype(np.float32))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def places(volume: Volume) -> dict[tuple[float, ...], float]:
    """Values by where they lie, to a hundredth of a millimetre."""
    index = np.stack(np.meshgrid(*[np.array([0, 3, n - 1]) for n in volume.shape], indexing="ij"), -1).reshape(-1, 3)
    world = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    keys = (tuple(float(v) + 0.0 for v in np.round(point, 2)) for point in world)
    return {key: float(volume.data[(0, *at)]) for key, at in zip(keys, index, strict=True)}


def test_values_and_places_come_back(tmp_path, dose):
    read = read_dose(write_dose(dose, tmp_path / "d.dcm"))
    np.testing.assert_allclose(read.data, dose.data, atol=1e-5)
    np.testing.assert_allclose(read.affine, dose.affine, atol=1e-4)


def test_a_left_handed_grid_lies_where_it_lay(tmp_path, dose):
    mirrored = dose.affine.copy()
    mirrored[:3, 0] *= -1
    turned = Volume(dose.data, mirrored)
    read = read_dose(write_dose(turned, tmp_path / "d.dcm"))
    before, after = places(turned), {}
    back = np.linalg.inv(read.affine)
    for point, value in before.items():
        z, y, x = np.rint(back[:3, :3] @ point + back[:3, 3]).astype(int)
        after[point] = (float(read.data[0, z, y, x]), value)
    assert all(seen == pytest.approx(true, abs=1e-4) for seen, true in after.values())


def test_each_plane_lies_where_the_standard_says(tmp_path, dose):
    dataset = pydicom.dcmread(write_dose(dose, tmp_path / "d.dcm"))
    row, column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    z, y, x = 5, 7, 11
    point = (
        np.array(dataset.ImagePositionPatient, float)
        + float(dataset.GridFrameOffsetVector[z]) * np.cross(row, column)
        + y * float(dataset.PixelSpacing[0]) * column
        + x * float(dataset.PixelSpacing[1]) * row
    )
    value = dataset.pixel_array[z, y, x] * float(dataset.DoseGridScaling)
    at = np.linalg.inv(dose.affine) @ [*(point * [-1, -1, 1]), 1]
    assert value == pytest.approx(float(dose.data[(0, *np.rint(at[:3]).astype(int))]), abs=1e-4)
    np.testing.assert_allclose(at[:3], np.rint(at[:3]), atol=1e-3)


def test_offsets_that_are_coordinates_of_the_patient(tmp_path, dose):
    path = write_dose(dose, tmp_path / "d.dcm")
    dataset = pydicom.dcmread(path)
    if [round(float(v)) for v in dataset.ImageOrientationPatient] != [1, 0, 0, 0, 1, 0]:
        pytest.skip("coordinates are for axial grids alone")
    first = float(dataset.ImagePositionPatient[2])
    dataset.GridFrameOffsetVector = [first + float(v) for v in dataset.GridFrameOffsetVector]
    dataset.save_as(path)
    np.testing.assert_allclose(read_dose(path).affine, dose.affine, atol=1e-4)


def test_coordinates_of_a_grid_whose_normal_points_down(tmp_path, dose):
    path = write_dose(dose, tmp_path / "d.dcm")
    dataset = pydicom.dcmread(path)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
    dataset.ImagePositionPatient = [0, 0, 50]
    dataset.GridFrameOffsetVector = [50 + 3 * n for n in range(dose.shape[0])]
    dataset.save_as(path)
    read = read_dose(path)
    assert (read.affine @ [4, 0, 0, 1])[2] == pytest.approx(62)  # coordinates, whatever the normal


def test_the_file_belongs_to_the_ct(tmp_path, dose, ct_folder):
    reference = read_reference(ct_folder)
    path = write_dose(dose, tmp_path / "d.dcm", reference)
    written = pydicom.dcmread(path)
    assert (written.PatientID, written.OperatorsName, written.InstanceNumber) == ("7", "", 1)
    assert (
        plan_of(path) == written.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID != ""
    )  # the standard asks for one
    assert plan_of(write_dose(dose, tmp_path / "p.dcm", replace(reference, plan="1.2.3"))) == "1.2.3"
    read_dose(path, frame=reference.frame)
    with pytest.raises(InputError, match="frame of reference"):
        read_dose(path, frame="1.2.3")


def changed(tmp_path, dose, **tags):
    path = write_dose(dose, tmp_path / "d.dcm")
    dataset = pydicom.dcmread(path)
    for key, value in tags.items():
        setattr(dataset, key, value) if value is not None else delattr(dataset, key)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"DoseUnits": "RELATIVE"}, "not in Gy"),
        ({"DoseGridScaling": None}, "scaling"),
        ({"DoseGridScaling": "1e-3"}, "cGy"),
        ({"GridFrameOffsetVector": None}, "planes"),
        ({"GridFrameOffsetVector": [0, *range(2, 25)]}, "unevenly"),
        ({"PixelData": b"\0\0"}, "damaged"),
        ({"Modality": "CT"}, "not RTDOSE"),
        ({"DoseUnits": None}, "no stated unit"),
        ({"DoseType": "ERROR"}, "difference"),
        ({"PixelData": None}, "no dose grid"),
    ],
)
def test_refused(tmp_path, dose, tags, says):
    with pytest.raises(InputError, match=says):
        read_dose(changed(tmp_path, dose, **tags))


def test_units_however_they_are_spelt(tmp_path, dose):
    assert np.allclose(read_dose(changed(tmp_path, dose, DoseUnits="Gy")).data, dose.data, atol=1e-4)
    assert np.allclose(read_dose(changed(tmp_path, dose, DoseUnits="cGy")).data, dose.data / 100, atol=1e-4)


@pytest.mark.parametrize(
    ("tags", "says"),
    [({"FrameOfReferenceUID": None}, "no frame of reference"), ({"DoseType": "EFFECTIVE"}, "biological effect")],
)
def test_told(tmp_path, dose, tags, says):
    path = changed(tmp_path, dose, **tags)
    assert [says in note for note in notes_of(path, frame="1.2")] == [True]
    assert len(notes_of(path)) == ("DoseType" in tags)


ORIENTATIONS = {
    "head first, supine": [1, 0, 0, 0, 1, 0], "head first, prone": [-1, 0, 0, 0, -1, 0],
    "feet first, supine": [-1, 0, 0, 0, 1, 0], "feet first, prone": [1, 0, 0, 0, -1, 0],
    "on the right side": [0, 1, 0, -1, 0, 0], "coronal": [1, 0, 0, 0, 0, -1],
}  # fmt: skip


@pytest.mark.parametrize("way", ["relative", "descending", "absolute"])
@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_every_orientation_and_way_to_count_planes(tmp_path, dose, orientation, way):
    row, column = np.array(orientation, float).reshape(2, 3)
    normal, start = np.cross(row, column), np.array([3.0, 5.0, 40.0])
    offsets = 2.5 * np.arange(dose.shape[0]) * (-1 if way == "descending" else 1)
    planes = start + offsets[:, np.newaxis] * normal  # where each plane's first voxel lies
    if way == "absolute":
        if not normal[2]:
            pytest.skip("coordinates are for axial grids alone")
        offsets = planes[:, 2]
    tags = {"ImageOrientationPatient": orientation, "ImagePositionPatient": list(start)}
    path = changed(tmp_path, dose, **tags, GridFrameOffsetVector=[f"{v:.3f}" for v in offsets])
    read = read_dose(path)
    seen = (read.affine @ np.stack([[z, 0, 0, 1] for z in range(len(planes))], 1))[:3].T
    np.testing.assert_allclose(seen, planes * [-1, -1, 1], atol=1e-3)


def test_below_zero_is_not_written(tmp_path, dose):
    with pytest.raises(OutputError, match="negative"):
        write_dose(dose.with_data(dose.data - 10), tmp_path / "d.dcm")


def test_a_sheared_grid_is_not_written(tmp_path, dose):
    sheared = dose.affine.copy()
    sheared[:3, 0] += 0.3 * sheared[:3, 1]
    with pytest.raises(OutputError, match="sheared"):
        write_dose(Volume(dose.data, sheared), tmp_path / "d.dcm")
