"""A folder for a while goes even where a thread writes on into it, and what went wrong is told as it was."""

from __future__ import annotations

import shutil

import pytest

from napari_mamba.io.common import settling


def fails_in(parent):
    with settling.scratch_folder(".image-", parent) as folder:
        (folder / "image.zarr").mkdir()
        raise OSError("the disk is full")


@pytest.mark.parametrize("late", [1, 2])
def test_a_thread_that_writes_on_after_a_failure(tmp_path, monkeypatch, late):
    """The thread is played: after each of the first removals a chunk is there again."""
    real, removals = shutil.rmtree, []

    def remove(folder, **options):
        real(folder, **options)
        removals.append(folder)
        if len(removals) <= late:
            (folder / "image.zarr" / "c").mkdir(parents=True)

    monkeypatch.setattr(settling.shutil, "rmtree", remove)
    monkeypatch.setattr(settling.time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match="the disk is full"):
        fails_in(tmp_path)
    assert not list(tmp_path.iterdir())
    assert len(removals) > late


def test_a_folder_goes_at_once_where_nothing_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(settling.time, "sleep", lambda seconds: pytest.fail("waited"))
    with settling.scratch_folder(".image-", tmp_path) as folder:
        (folder / "a").write_text("b")
    assert not list(tmp_path.iterdir())
