"""What a dose is predicted from, checked before the click; and the run of it."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_mamba.engine.suitability import Suitability
from napari_mamba.errors import InputError
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.radiotherapy.prediction import model
from napari_mamba.ui.radiotherapy.prediction.model import NOTHING, TARGET, Checked, Prediction, Use


@pytest.fixture
def prediction(opened, dose_bundle) -> Prediction:
    return Prediction(dose_bundle, opened.ct, tuple(opened.structures))


def test_each_structure_is_what_its_name_says(prediction):
    uses, plan = prediction.check()
    assert uses["PTV70"] == Use(TARGET, 70.0)
    assert uses["spinal cord"] == Use("spinal cord")
    assert uses["Body"].what == "patient's outline"
    assert any("nobody drew the oesophagus" in note for note in plan.notes)
    assert float(np.max(plan.volume.data[-2])) == pytest.approx(1.0)  # 70 Gy are 1


def test_a_name_that_says_nothing_is_mapped_by_hand(prediction, opened):
    for layer in opened.structures:
        for entry in layer.metadata[KEY]["classes"]:
            entry["name"] = {"spinal cord": "Struct 7", "PTV70": "boost"}.get(entry["name"], entry["name"])
            entry["kind"] = "" if entry["name"] == "boost" else entry["kind"]
    uses, _ = prediction.check()
    assert (uses["Struct 7"].what, uses["boost"].what) == (NOTHING, NOTHING)
    prediction.set_use("Struct 7", Use("spinal cord"))
    prediction.set_use("boost", Use(TARGET, 66.0))
    _, plan = prediction.check()
    cord = plan.volume.data[1 + [o.name for o in prediction.bundle.planning.organs].index("spinal cord")]
    assert (cord > 0).sum() == opened.made.structures["spinal cord"].mask.sum()
    assert float(np.max(plan.volume.data[-2])) == pytest.approx(66 / 70)


def _mr(prediction, opened):
    opened.ct.data = np.abs(np.asarray(opened.ct.data)).astype(np.float32)


def _pelvis(prediction, opened):
    for name in ("brainstem", "spinal cord", "right parotid", "left parotid", "larynx", "mandible"):
        prediction.set_use(name, Use(NOTHING))


def _elsewhere(prediction, opened):
    for layer in opened.structures:
        layer.translate = (5000, 0, 0)


def _frames(prediction, opened):
    opened.ct.metadata[KEY]["frame"] = "1.2.3"
    opened.structures[0].metadata[KEY]["frame"] = "1.2.4"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p, o: setattr(p, "bundle", None), "No bundle for doses"),
        (lambda p, o: setattr(p, "ct", None), "planning CT"),
        (lambda p, o: setattr(p, "ct", o.doses[0]), "is a dose"),
        (lambda p, o: setattr(p, "layers", ()), "Open an RTSTRUCT"),
        (lambda p, o: [p.set_use(name, Use(NOTHING)) for name in ("PTV56", "PTV70")], "no structure is a target"),
        (lambda p, o: p.set_use("PTV70", Use(TARGET, 0.0)), "no prescription"),
        (lambda p, o: p.set_use("PTV70", Use(TARGET, -70.0)), "no prescription"),
        (lambda p, o: p.set_use("PTV70", Use(TARGET, 7000.0)), "7000 Gy"),
        (lambda p, o: p.set_use("larynx", Use("mandible")), "keep one of them"),
        (_mr, "no Hounsfield units"),
        (_pelvis, "head and neck"),
        (_elsewhere, "outside the image"),
        (_frames, "another frame of reference"),
    ],
)
def test_what_stands_against_a_prediction_is_said_before_the_click(prediction, opened, change, says):
    change(prediction, opened)
    with pytest.raises(InputError, match=says):
        prediction.check()
    with pytest.raises(InputError, match="not checked"):
        prediction.job()


def test_what_a_run_would_doubt_is_said_before_the_click_and_not_again(prediction, monkeypatch):
    monkeypatch.setattr(model, "examine", lambda volume, bundle: Suitability((), ("This image is unlike others.",)))
    prediction.uses, plan = prediction.check()
    assert plan.notes[-1] == "This image is unlike others."
    prediction.checked = Checked(plan)
    assert "This image is unlike others." in prediction.job().told
    monkeypatch.setattr(model, "examine", lambda volume, bundle: Suitability(("no such image",), ()))
    with pytest.raises(InputError, match="no such image"):
        prediction.check()


def test_the_run_s_dose_lies_on_the_ct(prediction, opened):
    from napari_mamba.ui.radiotherapy.layers import dose_of, is_dose
    from napari_mamba.ui.results.layers import add_result
    from napari_mamba.ui.run.process.engine_process import EngineThread

    prediction.uses, plan = prediction.check()
    prediction.checked = Checked(plan)
    job = prediction.job()
    run = EngineThread().run(job.read(), job.bundle, job.options, threading.Event())
    while True:
        try:
            next(run)
        except StopIteration as end:
            outcome = end.value
            break
    assert outcome.error == ""
    layer = add_result(opened.viewer, outcome.result, job.bundle, job.place)
    assert is_dose(layer)
    assert layer.colormap.name == "dose"
    assert np.allclose(layer.data_to_world((0, 0, 0)), opened.ct.data_to_world((0, 0, 0)))
    dose = dose_of(layer).data[0]
    made = opened.made.structures
    assert dose.min() == 0
    assert dose[~made["Body"].mask].max() == 0
    assert dose[made["PTV70"].mask].mean() > 50 > 30 > dose[made["brainstem"].mask].mean()
