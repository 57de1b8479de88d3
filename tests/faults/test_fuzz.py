"""Five hundred mutated inputs for each reader, the same ones each time: `fuzz.py` tries as many as a night allows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import fuzz
from fuzz_targets import TARGETS
from mutations import mutated, mutated_json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs limits on time and memory of a process")
INPUTS = 500


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_input_is_read_or_refused_in_a_sentence(name, monkeypatch):
    folders = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", ":".join(folders))
    outcomes, failures = fuzz(name, INPUTS)
    assert failures == []
    assert outcomes["read"] + outcomes["refused"] == INPUTS
    assert outcomes["refused"] > INPUTS / 20


def test_mutations_are_the_same_each_time_and_change_something():
    import numpy as np

    content = b"sizes: 3 4 5\nspacings: 1 1 1\n" * 20
    first = [mutated(content, np.random.default_rng([1, n])) for n in range(50)]
    assert first == [mutated(content, np.random.default_rng([1, n])) for n in range(50)]
    assert sum(one != content for one in first) > 45
    texts = [mutated_json(b'{"a": [1, {"b": 2}]}', np.random.default_rng([1, n])) for n in range(50)]
    assert len(set(texts)) > 20
