"""What a log is told while a run goes on."""

from __future__ import annotations

import pytest

from napari_mamba.cli.reporting import progress
from napari_mamba.engine import Progress
from napari_mamba.engine.progress.overall import Overall


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    return progress.Lines()


def test_a_log_is_told_once_what_stays_the_same(lines, capsys):
    for done in (0, 0, 1, 1, 2):  # a worker that computes the whole tells nothing on its way
        lines.progress(Progress("network", done, 2), Overall())
    assert capsys.readouterr().err.splitlines() == [f"network {done} of 2" for done in range(3)]


def test_every_case_of_a_log_tells_its_own(lines, capsys):
    for number in range(2):
        lines.case(number, 2, f"patient {number}")
        lines.progress(Progress("network", 0, 2), Overall())
    assert capsys.readouterr().err.splitlines() == [
        *("case 1 of 2: patient 0", "network 0 of 2"),
        *("case 2 of 2: patient 1", "network 0 of 2"),
    ]
