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
    assert [row for row in found if not row["equal"]] == []
    assert sorted(row["number"] for row in found) == list(range(1, 21))
    assert all(len(row["killed"]) == 2 for row in found), "a kill came after the run's end"
