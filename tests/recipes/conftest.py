"""What tests of the brain bundle share."""

import numpy as np
import pytest
from made_hearts import sunnybrook  # noqa: F401  (fixtures)
from made_patients import first_patient, openkbp  # noqa: F401

from napari_mamba import engine
from napari_mamba.recipes.brain.structures import INDICES
from napari_mamba.volume import Volume


@pytest.fixture
def sure_answers(monkeypatch):
    """Runs find left white matter in what is bright, with a probability of one."""

    def run_to_end(volume, bundle, options):
        assert options.probabilities
        bright = np.asarray(volume.data)[0] > 0.5
        chances = np.zeros((len(INDICES), *bright.shape), np.float32)
        chances[0], chances[INDICES.index(2)] = ~bright, bright
        labels = volume.with_data(np.where(bright, 2, 0).astype(np.uint8)[None], ("labels",))
        return engine.Result(labels=labels, extra={"probabilities": Volume(chances)})

    monkeypatch.setattr(engine, "run_to_end", run_to_end)
