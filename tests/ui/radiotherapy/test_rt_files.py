"""Layers of a DICOM series: half of one is told, and RTDOSE and RTSTRUCT written from layers belong to it."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from napari.layers import Layer

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom.window import SOFT_TISSUE, ct_window
from napari_mamba.radiotherapy.dicom.rtdose import plan_of, read_dose
from napari_mamba.radiotherapy.dicom.rtstruct import read_structures
from napari_mamba.ui.files.readers import read_layers
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.radiotherapy.files import reference_for, save_dose, save_structures, series_under
from napari_mamba.ui.radiotherapy.layers import frame_of
from napari_mamba.ui.radiotherapy.plan.review import PlanReview
from napari_mamba.ui.radiotherapy.prediction.model import Prediction


@pytest.fixture
def plan(viewer, export):
    """CT, structures and dose of an export, opened one after the other."""
    return [_opened(viewer, export / part) for part in ("ct", "structures/rs.dcm", "dose/rd.dcm")]


def _opened(viewer, path):
    return [viewer.add_layer(Layer.create(*data)) for data in read_layers(str(path))]


def test_a_dose_that_a_model_made_is_written_for_the_ct_s_patient(viewer, export, plan, tmp_path, made):
    ((ct,), _, (dose,)) = plan
    predicted = viewer.add_image(dose.data, **{k: getattr(ct, k) for k in ("affine", "scale", "translate", "units")})
    known = ct.metadata[KEY]
    kept = {k: known[k] for k in ("affine", "layer_affine", "order", "units", "header")}  # as a result's layer has them
    predicted.metadata[KEY] = {**kept, "bundle": "dose-test", "dose_unit": "Gy"}
    assert frame_of(predicted) == frame_of(ct) != ""
    for layer, others in ((predicted, ()), (dose, list(viewer.layers))):  # an RTDOSE finds the CT by its frame
        path = save_dose(layer, tmp_path / f"{layer.name} again", others)
        written, first = pydicom.dcmread(path), pydicom.dcmread(export / "ct" / "000.dcm")
        for name in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert written[name].value == first[name].value
        assert (plan_of(path) == plan_of(export / "dose" / "rd.dcm")) == (layer is dose)
        assert np.allclose(read_dose(path).data, made.doses["A"].data, atol=1e-3)
        assert np.allclose(read_dose(path).affine, made.ct.affine, atol=1e-3)


def test_structures_are_written_on_the_ct_s_slices(viewer, export, plan, tmp_path, made):
    (_, structures, _) = plan
    path = save_structures(structures, tmp_path / "s.dcm", list(viewer.layers))
    ct = io.read(export / "ct")
    found = read_structures(path, ct, frame=frame_of(structures[0]))
    assert {one.name for one in found} == {one.name for one in made.structures}
    assert found["PTV70"].prescription == 70
    first = read_structures(export / "structures" / "rs.dcm", ct)
    for one in found:
        np.testing.assert_array_equal(one.mask, first[one.name].mask)
    with pytest.raises(InputError, match=r"the ending \.dcm"):
        save_structures(structures, tmp_path / "s.nii.gz")


def test_without_a_series_the_patient_has_no_name(opened):
    assert series_under(opened.ct) is None
    assert reference_for(opened.structures, [opened.ct]).slices == ()


def test_half_a_series_is_told_before_a_prediction_and_beside_the_histograms(viewer, export, dose_bundle, tmp_path):
    half = tmp_path / "ct"
    half.mkdir()
    files = sorted((export / "ct").iterdir())
    for file in files[: len(files) // 2]:
        shutil.copy(file, half)
    (ct,) = _opened(viewer, half)
    layers = tuple(_opened(viewer, export / "structures" / "rs.dcm"))
    with pytest.raises(InputError, match=f"{len(files) - len(files) // 2} of them are missing"):
        Prediction(dose_bundle, ct, layers).check()
    (dose,) = _opened(viewer, export / "dose" / "rd.dcm")
    notes = PlanReview(dose, None, layers).measure().reviewed.notes
    assert any("PTV70 reaches beyond the image" in note for note in notes)


def test_a_ct_is_shown_in_its_window_or_that_of_soft_tissue(viewer, export, tmp_path):
    (ct,) = _opened(viewer, export / "ct")
    assert tuple(ct.contrast_limits) == SOFT_TISSUE
    slice_ = pydicom.dcmread(export / "ct" / "000.dcm")
    for center, width, shown in (
        (["300", "40"], ["1500", "400"], (-450.0, 1050.0)),  # bone first
        ("40", "0", SOFT_TISSUE),
        (None, None, SOFT_TISSUE),
    ):
        slice_.WindowCenter, slice_.WindowWidth = center, width
        slice_.save_as(tmp_path / "one.dcm")
        assert ct_window([tmp_path / "one.dcm"]) == shown
    slice_.Modality = "MR"
    slice_.save_as(tmp_path / "one.dcm")
    assert ct_window([tmp_path / "one.dcm"]) is None
    assert ct_window([tmp_path / "gone.dcm"]) is None
