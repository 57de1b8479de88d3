"""The same run gives the same bytes: in processes with other numbers of threads, and in the mode that a GPU has."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.reproducibility import determinism
from napari_mamba.engine.reproducibility.determinism import check_deterministic, determinism_facts, reproducibly
from napari_mamba.errors import InputError, RunError
from napari_mamba.volume import Volume

SCRIPT = """
    import json, sys
    from test_determinism import sums

    print(json.dumps([sums(threads, json.loads(sys.argv[2])) for threads in json.loads(sys.argv[1])]))
"""


def sums(threads: int, jobs: list) -> dict:
    """Of everything that some bundles answer, on a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        answers = {}
        for name, path, slices, more in jobs:
            volume = io.read(path)
            part = volume.data[:, :slices, :40, :36]
            volume = Volume(part, volume.affine, volume.channel_names, volume.units)
            result = run_to_end(volume, bundles.load(name), RunOptions(device="cpu", **more))
            assert result.provenance["threads"] == threads
            parts = [one for one in (result.labels, result.image, *result.extra.values()) if one is not None]
            found = [hashlib.sha256(np.ascontiguousarray(one.data).tobytes()).hexdigest() for one in parts]
            answers[name] = [*found, repr(result.scores), repr(result.table)]
        return answers
    finally:
        torch.set_num_threads(before)


def in_another_process(threads: list[int], jobs: list) -> list[dict]:
    """It begins with the first number of threads."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(threads), json.dumps(jobs)]
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads[0]), "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def test_the_same_bytes_on_one_two_and_four_threads(tiny_bundle, sample_data):
    everything = {"probabilities": True, "uncertainty": True}
    small = {"tile": [16, 32, 32], "overlap": 0.25}
    jobs = [
        (str(tiny_bundle), str(sample_data / "hippocampus_left.nii.gz"), 24, everything),
        ("hippocampus-mr", str(sample_data / "hippocampus_left.nii.gz"), 16, {**everything, "mirror": False, **small}),
        ("mr-denoise", str(sample_data / "hippocampus_right.nii.gz"), 6, {"residual": True}),
    ]
    one = sums(1, jobs)
    assert in_another_process([2, 4], jobs) == [one, one]


def test_the_provenance_says_so(tiny_bundle, volume):
    result = run_to_end(volume, bundles.load(tiny_bundle), RunOptions(device="cpu"))
    assert result.provenance["determinism"]["deterministic"] is True
    assert result.provenance["options"]["deterministic"] is False


def test_what_a_gpu_promises():
    cuda, mps = torch.device("cuda:0"), torch.device("mps")
    assert determinism_facts(cuda)["deterministic"] is False
    assert "option deterministic" in determinism_facts(cuda)["how"]
    assert determinism_facts(cuda, True)["deterministic"] is True
    assert determinism_facts(mps)["deterministic"] is False
    check_deterministic(cuda, True)
    check_deterministic(mps, False)
    with pytest.raises(InputError, match="choose the device cpu"):
        check_deterministic(mps, True)


def switches() -> tuple:
    cudnn = torch.backends.cudnn
    strict = torch.are_deterministic_algorithms_enabled()
    return cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, strict


def test_the_mode_of_a_gpu_is_on_during_a_step_alone(monkeypatch):
    monkeypatch.delenv(determinism._WORKSPACE, raising=False)
    before = switches()
    with reproducibly(torch.device("cuda"), deterministic=False):
        assert switches() == before

    def work():
        yield switches()
        return switches()

    steps = determinism.in_reproducible_steps(work(), torch.device("cuda"), deterministic=True)
    assert next(steps) == (True, False, False, False, True)
    assert os.environ[determinism._WORKSPACE] == ":4096:8"
    assert switches() == before
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == (True, False, False, False, True)
    assert switches() == before


def test_a_step_without_a_deterministic_form_is_named():
    said = "cumsum_cuda_kernel does not have a deterministic implementation, but you set 'torch.use_deterministic"
    with (
        pytest.raises(RunError, match=r"cumsum_cuda_kernel.*choose the device cpu"),
        reproducibly(torch.device("cuda"), deterministic=True),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match=r"^other$"), reproducibly(torch.device("cuda"), deterministic=True):
        raise RuntimeError("other")
    assert not torch.are_deterministic_algorithms_enabled()
