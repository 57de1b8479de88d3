"""On a GPU: listening changes no bit, and the maps are those of the CPU."""

import numpy as np
import pytest
import torch
from tiny_networks import TINY

from napari_mamba import models
from napari_mamba.explain.methods.attention import attention_maps
from napari_mamba.explain.methods.attribution import relevance
from napari_mamba.explain.methods.states import state_maps
from napari_mamba.explain.recorded.recording import record
from napari_mamba.scan import listen

pytestmark = pytest.mark.gpu
CASES = [case for case in TINY if case.name in ("umamba_enc", "segmamba", "vmamba", "vim", "voxel_mamba_unet")]


def built(case, device):
    torch.manual_seed(0)
    return models.create(case.name, **case.arguments).eval().requires_grad_(False).to(device)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_listening_changes_no_bit(case):
    network, x, heard = built(case, "cuda"), case.inputs()[0].cuda(), []
    with torch.inference_mode():
        for _ in range(3):  # the second and third time the scan takes its short way
            plain = case.run(network, [x])
        with listen(network, heard.append):
            told = case.run(network, [x])
    assert torch.equal(plain, told)
    assert {call.backend for call in heard if call.kind == "scan"} == {"cuda"}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_maps_are_those_of_the_cpu(case, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x = case.inputs()[0][:1]
    found = {}
    for device in ("cpu", "cuda"):
        scans = record(built(case, device), x.to(device))
        scan = next(scan for scan in scans if scan.grid is not None)
        cell = int(np.prod(scan.grid)) // 2
        found[device] = {**attention_maps(scan, cell), **state_maps(scan, ("norm", "memory", "influence"))}
        answer = relevance(built(case, device), x.to(device), lambda y: y[0, 0].mean())
        assert answer.missing < 1e-4
    for name, values in found["cpu"].items():
        np.testing.assert_allclose(found["cuda"][name], values, rtol=2e-3, atol=2e-4 * np.abs(values).max())
