"""What is said before a run, and what becomes of it: the session, without a window."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mamba.bundles import Tile
from napari_mamba.engine import Progress, Result
from napari_mamba.recipes.dose.bundle import spec as dose_spec
from napari_mamba.ui.run.choice.options import suited_options
from napari_mamba.ui.run.process.devices import DeviceFacts
from napari_mamba.ui.run.process.outcome import Outcome
from napari_mamba.ui.run.queue.jobs import State
from napari_mamba.ui.run.session import RunSession, session_of

VALUES = np.random.default_rng(1).random((20, 24, 28)).astype(np.float32)
MM = {"scale": (1, 1, 1), "units": ("mm", "mm", "mm")}


@pytest.fixture
def session(tiny) -> RunSession:
    viewer = ViewerModel()
    viewer.add_image(VALUES, name="scan", **MM)
    session = RunSession(viewer)
    session.choose_bundle(session.library.find("tiny"))
    return session


def said(session: RunSession, kind: str) -> list[str]:
    return [remark.text for remark in session.remarks() if remark.kind == kind]


def test_a_fitting_image_is_ready_and_nothing_is_said(session):
    session.viewer.layers.clear()
    session.viewer.add_image(np.random.default_rng(0).random((40, 40, 40)), name="fine", **MM)
    assert session.remarks() == []
    assert session.ready


@pytest.mark.parametrize(
    ("values", "words"),
    [(np.full((20, 24, 28), np.nan), "NaN or infinite"), (np.zeros((20, 24, 28)), "'broken' is 0 everywhere")],
)
def test_values_that_cannot_be_run_are_told_before_the_click(session, values, words):
    session.viewer.layers.clear()
    session.viewer.add_image(VALUES, name="broken", **MM).data = values
    assert words in said(session, "error")[0]
    assert not session.ready
    assert "replace_nonfinite" not in said(session, "error")[0], "a word of Python, not of this window"


def test_values_changed_in_place_are_looked_at_anew(session):
    session.viewer.layers.clear()
    layer = session.viewer.add_image(VALUES.copy(), name="own", **MM)
    assert session.ready
    assert session._examined._known, "what was found is kept"
    layer.data[:] = 0
    assert "0 everywhere" in said(session, "error")[0]


def test_a_value_for_nan_lets_them_through(session):
    values = VALUES.copy()
    values[0, 0, 0] = np.nan
    session.viewer.layers.clear()
    session.viewer.add_image(values, name="gaps", **MM)
    assert not session.ready
    session.options.replace_nonfinite = "0"
    assert session.ready


def test_doubts_of_size_are_told_before_the_click_in_the_engines_own_words(session):
    from napari_mamba.engine.checks import size_warnings

    session.viewer.layers.clear()
    session.viewer.add_image(VALUES[:6], name="crop", **MM)
    # 6 slices, which "RAS" turns into no other number, against a tile of 40
    assert size_warnings((6, 24, 28), (40, 40, 40))[0] in said(session, "warning")
    assert session.ready, "a doubt is no refusal"


@pytest.mark.parametrize(("name", "text"), [("tile", "many"), ("overlap", "2"), ("batch_size", "0"), ("spacing", "")])
def test_an_option_that_is_no_number_is_told_at_once(session, name, text):
    setattr(session.options, name, text)
    assert bool(said(session, "error")) == bool(text)
    assert session.ready != bool(text)


def test_models_that_fit_come_first_and_the_others_say_why(session):
    session.viewer.layers.clear()
    session.viewer.add_image(VALUES, name="one", **MM)
    ranked = session.ranked()
    assert {bundle.name for bundle, _ in ranked} >= {"tiny", "tiny-two", "brain-structures-mr"}
    fits = [suits.fits for _, suits in ranked]
    assert fits == sorted(fits, reverse=True)
    reasons = {bundle.name: suits for bundle, suits in ranked}
    assert "sides of 80 to 400 mm" in reasons["brain-structures-mr"].warnings[0]
    assert "2 channels" in reasons["tiny-two"].refusals[0]
    assert "labels" in reasons["adrenal-shape"].refusals[0]


def test_a_model_for_doses_is_not_offered_for_an_image_and_names_its_command(session, monkeypatch):
    dose = dose_spec()
    monkeypatch.setattr(session.library, "bundles", [dose, *session.library.bundles])
    (suits,) = [suits for bundle, suits in session.ranked() if bundle is dose]
    assert "predict a dose in Plugins ▸ Mamba medical imaging ▸ Radiotherapy" in suits.refusals[0]
    assert session.ranked()[0][0] is not dose
    session.choose_bundle(dose)
    assert "predict a dose in Plugins ▸ Mamba medical imaging ▸ Radiotherapy" in said(session, "error")[0]
    assert not session.ready


def test_a_task_chooses_a_model_of_it_and_keeps_one_that_is(session):
    session.choose_task("segmentation")
    assert session.bundle.name == "tiny"
    session.choose_task("restoration")
    assert session.bundle.task == "restoration"
    chosen = session.inputs.chosen[0]
    assert chosen is session.viewer.layers["scan"]


@pytest.mark.parametrize(
    ("sample", "model"),
    [("hippocampus_left", "hippocampus-mr"), ("head", "brain-structures-mr"), ("noisy_head", "hippocampus-mr")],
)
def test_segment_on_a_sample_chooses_the_model_that_fits_it(sample, model):
    from napari.layers import Layer

    from napari_mamba.ui.files import samples

    viewer = ViewerModel()
    for layer in getattr(samples, sample)():
        viewer.add_layer(Layer.create(*layer))
    session = RunSession(viewer)
    assert session.bundle.name == "brain-structures-mr"
    session.choose_task("segmentation")
    assert session.bundle.name == model
    session.choose_bundle(session.library.find("heart-mr"))
    session.choose_task("segmentation")
    assert session.bundle.name == "heart-mr", "what was chosen by hand stays"


def test_a_run_is_queued_with_what_was_chosen_at_the_click(session):
    layer = session.viewer.layers["scan"]
    (job,) = session.start()
    at = job.place.affine.copy()
    layer.translate = (50, 50, 50)
    layer.name = "other"
    session.viewer.layers.clear()
    assert job.title == "scan"
    np.testing.assert_array_equal(job.place.affine, at)
    np.testing.assert_array_equal(job.read().data[0], VALUES)


def test_what_was_said_of_a_run_is_gone_when_it_is_not_true_any_more(session):
    (job,) = session.start()
    session.queue.take_next()
    session.queue.end(job, Outcome(error="Memory ran out."))
    assert session.last is job
    session.options.tile = "32"
    assert session.last is None, "an error of the run with other options"
    (job,) = session.start()
    session.queue.take_next()
    session.queue.end(job, Outcome(Result(scores={"a": 1.0})))
    assert session.last.state is State.DONE
    session.choose_bundle(session.library.find("mr-denoise"))
    assert session.last is None, "said of another model"


def test_a_frame_of_a_series_is_the_one_that_is_shown(session):
    film = np.stack([VALUES + i for i in range(3)])
    session.viewer.layers.clear()
    session.viewer.add_image(film, name="film", scale=(1, 2, 1, 1), translate=(0, 5, 6, 7))
    session.viewer.dims.set_current_step(0, 2)
    (job,) = session.start()
    np.testing.assert_array_equal(job.read().data[0], film[2])
    assert job.place.ndim == 3
    corner = session.viewer.layers["film"].data_to_world((2, 0, 0, 0))[1:]
    np.testing.assert_allclose(job.place.transforms["affine"].affine_matrix[:3, 3], corner)


def test_the_device_that_is_not_there_is_not_silently_another(session):
    session.devices = [DeviceFacts("cpu")]
    assert session.device == "cpu"
    session.options.device = "cuda:1"
    assert session.device == "cuda:1", "the run refuses it in a sentence; nothing is put in its place"


def test_a_viewer_has_one_session(tiny):
    viewer = ViewerModel()
    assert session_of(viewer) is session_of(viewer)
    assert session_of(viewer) is not session_of(ViewerModel())


def test_a_removed_bundle_is_not_chosen_any_more(session):
    session.library.bundles = tuple(b for b in session.library.bundles if b.name != "tiny")
    session.library.changed.emit()
    assert session.bundle is not None
    assert session.bundle.name != "tiny"


def test_mirroring_is_the_models_own_until_it_is_chosen(session):
    bundle = session.bundle
    mirrored = replace(bundle, tile=replace(bundle.tile, mirror_axes=(2,)))
    options = session.options
    assert options.mirrored(mirrored)
    assert not options.mirrored(bundle)
    options.mirror = False
    assert options.run_options(mirrored).mirror is False
    session.choose_bundle(session.library.find("mr-denoise"))
    assert options.mirror is None, "another model's own"
    assert options.run_options(session.bundle).mirror is False
    options.spread = True
    assert options.run_options(session.bundle).mirror is True, "the spread is over mirrored copies"


def test_a_strength_is_of_restorations_alone_and_in_percent(session):
    session.options.strength = "50 %"
    assert session.options.run_options(session.bundle).strength == 1.0
    session.choose_bundle(session.library.find("mr-denoise"))
    for text, strength in (("50 %", 0.5), ("150", 1.5), ("", 1.0)):
        session.options.strength = text
        assert session.options.run_options(session.bundle).strength == strength
    session.options.slice_profile = "sinc"
    assert session.options.run_options(session.bundle).slice_profile is None, "what it answers lies on its own grid"
    session.options.strength = "200"
    assert any("150%" in message for message in said(session, "error"))


def test_a_seed_is_of_samplers_alone(session):
    session.options.seed = "7"
    assert session.options.run_options(session.bundle).seed == 0
    sampler = SimpleNamespace(task="diffusion", tile=Tile((16, 16)), preparation=())
    assert "seed" in suited_options(sampler)
    assert session.options.run_options(sampler).seed == 7


def test_a_map_asked_of_one_kind_of_model_is_not_asked_of_another(session):
    session.options.uncertainty = True
    assert session.options.run_options(session.bundle).uncertainty
    for name in ("mr-denoise", "mr-quality"):
        assert not session.options.run_options(session.library.find(name)).uncertainty


def test_progress_of_the_queue_reaches_the_listener(session):
    (job,) = session.start()
    seen = []
    session.queue.progressed.connect(lambda one: seen.append((one.stage, one.clock.done)))
    session.queue.take_next()
    session.queue.progress(job, Progress("network", 3, 8))
    assert seen == [("network", 3)]


def test_doubts_that_were_said_before_the_click_are_not_said_again(session):
    from napari_mamba.ui.run.choice.texts import ended_text

    session.viewer.layers.clear()
    session.viewer.add_image(VALUES[:6], name="crop", **MM)
    before = said(session, "warning")
    assert before
    (job,) = session.start()
    session.queue.take_next()
    result = Result(scores={"a": 1.0}, warnings=[*before, "A class is missing."])
    session.queue.end(job, Outcome(result))
    assert ended_text(job) == (ended_text(job)[0].splitlines()[0] + "\nA class is missing.", "warning")


def test_preferences_count_at_once(session, plugin_settings, npe2pm, monkeypatch):
    from pathlib import Path

    from napari.settings import get_plugin_settings
    from npe2 import PluginManifest

    import napari_mamba
    from napari_mamba.ui.preferences import on_preferences_changed
    from napari_mamba.ui.run.process.settings import current_settings

    npe2pm.register(PluginManifest.from_file(Path(napari_mamba.__file__).parent / "napari.yaml"))
    end = on_preferences_changed(session.take_preferences)
    chosen = get_plugin_settings("napari-mamba").run
    session.options.device = "cpu"  # by hand, in the dock
    chosen.precision = "bfloat16"
    chosen.cache_mb = 3
    chosen.memory_gb = 4
    assert session.options.precision == "bfloat16"
    assert session.options.run_options(session.bundle).precision == "bfloat16", "the next run's"
    assert session.cache.limit == 3 * 2**20
    assert current_settings().memory_bytes == 4 * 2**30
    assert session.options.device == "cpu", "another preference changes nothing that was chosen in the dock"
    chosen.device = "mps"
    assert session.options.device == "mps"
    end()
    chosen.precision = "float32"
    assert session.options.precision == "bfloat16"
