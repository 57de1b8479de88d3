"""Twenty runs, each with a worker killed and the scheduler restarted at random moments: the undisturbed answer."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("distributed")


@pytest.mark.heavy
def test_killed_at_random_moments_a_run_gives_the_undisturbed_answer(tmp_path, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root))
    monkeypatch.chdir(root)  # the cluster's processes find the package here
    from benchmarks.scale import kills

    found = list(kills.runs(20, (768, 256, 256), "ultralight_vm_unet", 0, tmp_path))
    assert [killed for killed, equal in found if not equal] == []
    assert all(len(killed) == 2 for killed, _ in found), "a kill came after the run's end"
