"""Every vector notices its scan: turned or cut, the outputs are no longer the authors'.

On request, since it runs the networks again: `pytest -m heavy tests/models/test_scans_noticed.py`.
"""

from __future__ import annotations

import re
from types import SimpleNamespace

import parity_vectors
import pytest
import torch

from napari_mamba.models.slides import mammil
from napari_mamba.nn.mixers import mamba2
from napari_mamba.nn.xlstm import mlstm
from napari_mamba.scan import operator, torch_backend

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("one_thread")]
VECTORS = [
    pytest.param(network, vector, id=vector)
    for network, vector in [*parity_vectors.registered(), *(("", name) for name in parity_vectors.LAYERS)]
    if vector not in parity_vectors.HEAVY
]
HARM = {
    "turned": lambda y, axis: y.flip(axis),
    "cut": lambda y, axis: torch.cat(
        [y.narrow(axis, 0, 1), torch.zeros_like(y.narrow(axis, 1, y.shape[axis] - 1))], axis
    ),
}


def distance(name: str, built: torch.nn.Module, vector: parity_vectors.Vector) -> float:
    if seed := re.search(r"_seed(\d+)$", name):
        torch.manual_seed(int(seed.group(1)))
    with torch.inference_mode():
        found = parity_vectors.flatten(parity_vectors.run(name, built, vector.inputs()))
    triples = zip(found, vector.outputs, vector.spec["outputs"], strict=True)
    return max(parity_vectors.relative_l2(y, expected, {**facts, "std": None}) for y, expected, facts in triples)


@pytest.mark.parametrize(("network", "name"), VECTORS)
def test_a_scan_that_is_turned_or_cut_is_noticed(network, name, monkeypatch):
    vector = parity_vectors.load(name)
    built = parity_vectors.build(network, vector) if network else parity_vectors.layer(vector)
    bound, calls = parity_vectors.OWN_ROUNDING.get(name, parity_vectors.TOLERANCE), []
    real_ssd, real_stretch, real_mlstm = mamba2.ssd, mammil.ssd_from, mlstm.mlstm
    assert distance(name, built, vector) <= bound
    for harm in HARM.values():

        def scan(args, harm=harm):
            calls.append("selective scan")
            y, state = torch_backend.selective_scan(args)
            return harm(y, -2), state

        def ssd(*given, harm=harm, **more):
            calls.append("Mamba-2's scan")
            return harm(real_ssd(*given, **more), -3)

        def stretch(*given, harm=harm, **more):
            calls.append("Mamba-2's scan, in stretches")
            y, state = real_stretch(*given, **more)
            return harm(y, -3), state

        def memory(*given, harm=harm, **more):
            calls.append("mLSTM")
            return harm(real_mlstm(*given, **more), -2)

        with monkeypatch.context() as patch:
            backend = SimpleNamespace(selective_scan=scan, causal_conv1d=torch_backend.causal_conv1d)
            patch.setattr(operator, "get_backend", lambda _, backend=backend: backend)
            patch.setattr(mamba2, "ssd", ssd)
            patch.setattr(mammil, "ssd_from", stretch)
            patch.setattr(mlstm, "mlstm", memory)
            found = distance(name, built, vector)
        if not calls:
            pytest.skip("no scan in this network")
        assert not found <= 3 * bound  # NaN is noticed, too
