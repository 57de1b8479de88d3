"""The doses of a plan's beams in several files: summed where they are all of it, else refused."""

import numpy as np
import pydicom
import pytest

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dicom.beams import plan_dose
from napari_mamba.radiotherapy.dicom.reference import new_dataset, save, without_series
from napari_mamba.radiotherapy.dicom.rtdose import write_dose
from napari_mamba.radiotherapy.sources import told_dose
from napari_mamba.volume import Volume

PLAN = "1.2.826.0.1.3680043.8.498.9"
AXIAL = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])


@pytest.fixture
def dose():
    return Volume(np.linspace(0, 30, 60, dtype=np.float32).reshape(1, 3, 4, 5), AXIAL)


def item(**values):
    dataset = pydicom.Dataset()
    for key, value in values.items():
        setattr(dataset, key, value)
    return dataset


def beam(folder, dose, number, plan=PLAN, summed="BEAM"):
    path = write_dose(dose, folder / f"beam{number}{summed}{plan[-1]}.dcm", summed=summed)
    dataset = pydicom.dcmread(path)
    group = item(ReferencedFractionGroupNumber=1, ReferencedBeamSequence=[item(ReferencedBeamNumber=number)])
    dataset.ReferencedRTPlanSequence = [item(ReferencedSOPInstanceUID=plan, ReferencedFractionGroupSequence=[group])]
    dataset.save_as(path)
    return path


def rtplan(folder, beams):
    dataset = new_dataset(without_series(), "RTPLAN", "1.2.840.10008.5.1.4.1.1.481.5")
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = PLAN
    treats = [item(ReferencedBeamNumber=number, BeamMeterset=meterset) for number, meterset in beams.items()]
    dataset.FractionGroupSequence = [item(FractionGroupNumber=1, ReferencedBeamSequence=treats)]
    return save(dataset, folder / "plan.dcm")


def test_beams_are_summed_and_that_is_told(tmp_path, dose):
    for number in (1, 2, 3):
        beam(tmp_path, dose.with_data(dose.data * number), number)
    total, told = told_dose(tmp_path)
    np.testing.assert_allclose(total.data, 6 * dose.data, atol=1e-4)
    assert told == ("the doses of 3 parts of the plan were summed; that these are all, the files do not tell",)
    rtplan(tmp_path, {1: 100.0, 2: 90.0, 3: 80.0, 4: 0.0})  # the last one is for setting up
    assert plan_dose(tmp_path)[1] == ("the doses of 3 parts of the plan were summed",)


def test_the_plan_s_own_dose_goes_before_its_beams(tmp_path, dose):
    for number in (1, 2):
        beam(tmp_path, dose, number)
    write_dose(dose.with_data(dose.data * 2.5), tmp_path / "whole.dcm")
    total, told = plan_dose(tmp_path)
    np.testing.assert_allclose(total.data, 2.5 * dose.data, atol=1e-4)
    assert told == ("of 3 doses, whole.dcm is the plan's",)


def test_one_dose_in_a_folder_keeps_its_notes(tmp_path, dose):
    beam(tmp_path, dose, 1)
    assert "single beams, not of the plan" in told_dose(tmp_path)[1][0]


def _twice(folder, dose):
    beam(folder, dose, 1, summed="BEAM").rename(folder / "again.dcm")
    beam(folder, dose, 1)


def _of_two_plans(folder, dose):
    beam(folder, dose, 1)
    beam(folder, dose, 2, PLAN[:-1] + "8")


def _of_two_kinds(folder, dose):
    beam(folder, dose, 1)
    beam(folder, dose, 2, summed="FRACTION")


def _of_two_wholes(folder, dose):
    for name in "ab":
        write_dose(dose, folder / f"{name}.dcm")


def _lacking_one(folder, dose):
    for number in (1, 3):
        beam(folder, dose, number)
    rtplan(folder, {1: 100.0, 2: 90.0, 3: 80.0})


def _on_two_grids(folder, dose):
    beam(folder, dose, 1)
    beam(folder, Volume(dose.data, AXIAL @ np.diag([2.0, 1, 1, 1])), 2)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (_twice, "part 1 of the plan twice"),
        (_of_two_plans, "parts of 2 plans"),
        (_of_two_kinds, "not the beams of one plan"),
        (_of_two_wholes, "not the beams of one plan"),
        (_lacking_one, "lacks the dose of part 2"),
        (_on_two_grids, "another grid"),
    ],
)
def test_what_cannot_be_summed_is_refused(tmp_path, dose, made, says):
    made(tmp_path, dose)
    with pytest.raises(InputError, match=says):
        plan_dose(tmp_path)
