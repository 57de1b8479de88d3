"""`run_on`: one call from a console, which returns at once."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_mamba.errors import InputError, RunError
from napari_mamba.ui import run_on
from napari_mamba.ui.run.host import host_of


@pytest.fixture
def viewer(qtbot, tiny, in_this_process, errors):
    viewer = ViewerModel()
    viewer.add_image(np.random.default_rng(0).random((20, 24, 28)).astype(np.float32), name="scan")
    yield viewer
    host_of(viewer).close()


def test_it_returns_at_once_and_adds_the_result(viewer):
    run = run_on(viewer, "scan", "tiny", device="cpu", tile=40)
    assert run.state in ("waiting", "running")
    assert len(viewer.layers) == 1
    result = run.wait(60)
    assert run.state == "done"
    assert isinstance(run.layer, Labels)
    assert run.layer in viewer.layers
    np.testing.assert_array_equal(run.layer.data, result.labels.data[0])
    assert result.provenance["options"]["tile"] == 40
    assert repr(run) == "<tiny: scan: done>"


def test_what_cannot_be_run_is_told_at_once(viewer):
    for arguments, words in (
        ((viewer, "nothing", "tiny"), "no layer called 'nothing'"),
        ((viewer, "scan", "no-such-bundle"), "known are: .*tiny"),
        ((viewer, "scan", "tiny-two"), "takes 2 layers"),
    ):
        with pytest.raises(InputError, match=words):
            run_on(*arguments)
    with pytest.raises(InputError, match="no option 'colour'"):
        run_on(viewer, "scan", "tiny", colour=1)


def test_a_run_that_fails_or_is_cancelled_is_told_by_waiting(viewer):
    with pytest.raises(RunError, match="no device 'cuda:77'"):
        run_on(viewer, "scan", "tiny", device="cuda:77").wait(60)
    run = run_on(viewer, viewer.layers["scan"], "tiny", device="cpu")
    run.cancel()
    with pytest.raises(RunError, match="was cancelled"):
        run.wait(60)
    assert len(viewer.layers) == 1
