"""On a GPU: listening changes no bit, and the maps are those of the CPU.

Alone on a machine with PyTorch, NumPy, SciPy and Numba: `python -m pytest tests/explain/test_gpu.py`.
"""

import numpy as np
import pytest
import torch
from tiny_networks import TINY

from napari_mamba import models
from napari_mamba.explain.maps import MAPS, explain
from napari_mamba.explain.methods.attention import attention_maps, attention_of
from napari_mamba.explain.methods.attribution import relevance
from napari_mamba.explain.methods.rollout import rollout_of
from napari_mamba.explain.methods.states import state_maps
from napari_mamba.explain.recorded.opening import subject_of_network
from napari_mamba.explain.recorded.paths import SelectivePath
from napari_mamba.explain.recorded.recording import record
from napari_mamba.scan import listen
from napari_mamba.volume import Volume

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
CASES = [case for case in TINY if case.name in ("umamba_enc", "segmamba", "vmamba", "vim", "voxel_mamba_unet")]


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def built(case, device):
    torch.manual_seed(0)
    return models.create(case.name, **case.arguments).eval().requires_grad_(False).to(device)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_listening_changes_no_bit(case):
    network, x, heard = built(case, DEVICE), case.inputs()[0].to(DEVICE), []
    with torch.inference_mode():
        for _ in range(3):  # the second and third time the scan takes its short way
            plain = case.run(network, [x])
        with listen(network, heard.append):
            told = case.run(network, [x])
        again = case.run(network, [x])
    assert torch.equal(plain, told)
    assert torch.equal(plain, again)
    mixer = "ssd" if case.note == "m2" else DEVICE  # what Mamba-2 scans by is named apart
    assert {call.backend for call in heard if call.kind == "scan"} == {mixer}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_maps_are_those_of_the_cpu(case):
    x = case.inputs()[0][:1]
    found = {}
    for device in ("cpu", DEVICE):
        scans = record(built(case, device), x.to(device))
        scan = next(scan for scan in scans if scan.grid is not None)
        cell = int(np.prod(scan.grid)) // 2
        found[device] = {**attention_maps(scan, cell), **state_maps(scan, ("norm", "memory", "influence"))}
        found[device]["rollout"] = rollout_of([scan], cell).map
        found[device]["rollout in linear time"] = rollout_of([scan], cell, exact=0).map
    for name, values in found["cpu"].items():
        np.testing.assert_allclose(found[DEVICE][name], values, rtol=2e-3, atol=2e-4 * np.abs(values).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_relevance_is_conserved_and_that_of_the_cpu(case):
    x = case.inputs()[0][:1]
    found = {}
    for device in ("cpu", DEVICE):
        found[device] = relevance(built(case, device), x.to(device), lambda y: y[0, 0].mean())
        one = found[device]
        terms = float(one.map.double().abs().sum()) + abs(one.constants)
        # in float32 what is left is rounding, which is of the terms' size and not of their sum's
        assert abs(one.answer - one.sum - one.constants) < 1e-4 * terms
    a, b = found["cpu"].map, found[DEVICE].map.cpu()
    assert float((a - b).norm()) < 2e-2 * float(a.norm())


@pytest.fixture(scope="module")
def subjects():
    case = next(case for case in CASES if case.name == "umamba_enc")
    channels, *tile = case.shape[1:]
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((channels, *(n + 4 for n in tile)), np.float32))
    return {device: subject_of_network(volume, built(case, device), tile, device=device) for device in ("cpu", DEVICE)}


@pytest.mark.parametrize("name", MAPS)
def test_every_map_is_made_there(subjects, name):
    found = {device: explain(subject, [name]) for device, subject in subjects.items()}
    assert found[DEVICE].volumes or found[DEVICE].curves
    for key, volume in found["cpu"].volumes.items():
        values, other = np.asarray(volume.data), np.asarray(found[DEVICE].volumes[key].data)
        if key == "components":  # their signs are free where two vary alike
            values, other = np.abs(values), np.abs(other)
        assert np.linalg.norm(other - values) < 5e-2 * np.linalg.norm(values) + 1e-6, key


def test_a_click_is_served_by_one_pass(subjects):
    """What the window does: the pass is kept on the device, and the attention of a layer and the field come from it."""
    subject, voxel = subjects[DEVICE], tuple(n // 2 for n in subjects[DEVICE].volume.shape)
    plain = explain(subject, ["attention", "field"], voxel, growth=False)
    subject.forget()
    subject.prepare(voxel)
    kept = subject._graph
    assert kept is not None
    assert kept[1].input.device.type == torch.device(DEVICE).type
    found = explain(subject, ["attention", "field"], voxel, growth=False)
    assert subject._graph is kept
    for name, volume in plain.volumes.items():
        a, b = np.asarray(volume.data), np.asarray(found.volumes[name].data)
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a), name


def test_a_quarter_of_a_million_tokens_agree_with_float64():
    torch.manual_seed(1)
    length = 2**18
    delta = torch.nn.functional.softplus(torch.randn(length, 8) * 0.3 - np.log(length) - 0.5)
    A = -torch.arange(1.0, 4).expand(8, 3).contiguous()
    rows = torch.randn(2, length, 1, 3)
    steps = torch.arange(length)
    path = SelectivePath(0, steps, steps, torch.randn(length, 8), None, delta, A, *rows).on(DEVICE)
    found = attention_of(path, length - 1)
    names = ("u", "delta", "A", "B", "C")
    wide = SelectivePath(0, path.table, path.cells, *(getattr(path, n).double() if n in names else None for n in
                         ("u", "skip", "delta", "A", "B", "C")))  # fmt: skip
    exact = attention_of(wide, length - 1)
    for name in ("drawn", "drawn_absolute", "contribution"):
        a, b = getattr(found, name).double(), getattr(exact, name)
        assert float((a - b).norm() / b.norm()) < 1e-5
