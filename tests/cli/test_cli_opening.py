"""What the command opens before it looks at its arguments: for a run in this process alone."""

from __future__ import annotations

import pytest

from napari_mamba.cli import runs_on

IMAGE = __file__  # a file that is there


@pytest.mark.parametrize(
    ("arguments", "device"),
    [
        (["run", "a-bundle", IMAGE, "-o", "x.nii.gz"], "auto"),
        (["run", "a-bundle", IMAGE, "--device", "cuda:1"], "cuda:1"),
        (["run", "--device=cpu", "a-bundle", IMAGE], "cpu"),
        (["run", "a-bundle", IMAGE, "--device"], "auto"),
        (["run", "a-bundle", "no-such-file"], ""),
        (["run", "a-bundle", IMAGE, "--scheduler", "tcp://here"], ""),
        (["run", "a-bundle", IMAGE, "--workers=2"], ""),
        (["run", "a-bundle", IMAGE, "--dry-run"], ""),
        (["run", "--help"], ""),
        (["batch", "a-bundle", IMAGE], ""),
        ([], ""),
    ],
)
def test_the_device_is_guessed_of_a_run_that_can_begin(arguments, device):
    assert runs_on(arguments) == device
