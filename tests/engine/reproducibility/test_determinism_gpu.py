"""On a GPU: the deterministic mode gives the same bytes, in one process and in two, and close to those of the CPU.

Alone on a machine with PyTorch, NumPy and SciPy, on random voxels:
`python -m pytest -m gpu tests/engine/reproducibility/test_determinism_gpu.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from napari_mamba import bundles
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.volume import Volume

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
JOBS = {
    "hippocampus-mr": {"probabilities": True, "uncertainty": True},
    "mr-denoise": {"residual": True},
}
SCRIPT = """
    import json, sys
    import test_determinism_gpu as here

    print(json.dumps(here.sums(sys.argv[1], True)))
"""


def volume() -> Volume:
    """Blocks of other brightness in noise, on voxels of 1 mm."""
    random = np.random.default_rng(0)
    blocks = np.kron(random.integers(20, 200, (5, 7, 5)), np.ones((8, 8, 8)))
    data = (blocks + random.normal(0, 9, blocks.shape)).clip(0).astype(np.float32)
    return Volume(data[None], np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]], ("MR",), "mm", "blocks")


def answer(name: str, deterministic: bool, device: str = DEVICE):
    options = RunOptions(device=device, deterministic=deterministic, precision="float32", **JOBS[name])
    return run_to_end(volume(), bundles.load(name), options)


def parts(result) -> list[np.ndarray]:
    found = [one for one in (result.labels, result.image, *result.extra.values()) if one is not None]
    return [np.ascontiguousarray(one.data) for one in found]


def sums(name: str, deterministic: bool) -> list[str]:
    return [hashlib.sha256(part.tobytes()).hexdigest() for part in parts(answer(name, deterministic))]


@pytest.mark.parametrize("name", list(JOBS))
def test_the_same_bytes_in_every_run_and_process(name):
    first = answer(name, True)
    assert first.provenance["determinism"]["deterministic"] is True
    before = [hashlib.sha256(part.tobytes()).hexdigest() for part in parts(first)]
    assert before
    for _ in range(2):
        assert sums(name, True) == before
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == before


def test_close_to_the_cpu_and_the_mode_is_left(capsys):
    import torch

    gpu, cpu = answer("hippocampus-mr", True), answer("hippocampus-mr", False, "cpu")
    np.testing.assert_allclose(gpu.extra["probabilities"].data, cpu.extra["probabilities"].data, atol=2e-3)
    assert not torch.are_deterministic_algorithms_enabled()
    free = answer("hippocampus-mr", False)
    assert free.provenance["determinism"]["deterministic"] is False
    assert "option deterministic" in free.provenance["determinism"]["how"]
