"""A run into a store that was stopped anywhere goes on where it was; two runs never write into one store."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import zarr
from engine_fakes import Apply, fake_bundle, two_classes
from stored_fakes import drain
from zarr.storage import LocalStore

from napari_mamba import io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.stored import layout as layout_module
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.run import run_into
from napari_mamba.engine.stored.work import Work
from napari_mamba.errors import InputError, OutputError
from napari_mamba.io import stores
from napari_mamba.io.common.settling import settle
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu", precision="float32", mirror=False)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(layout_module, "CHUNK", 16)
    monkeypatch.setattr(layout_module, "LAYER", 8)
    monkeypatch.setattr(layout_module, "MOST_MEMORY", 2**18)


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(0).random((1, 32, 40, 36), np.float32), name="image")


def bundle(**changes):
    return fake_bundle(Apply(two_classes), classes=2, **changes)


def stopped(events, after):
    """Drive a run for so many of its passes, then leave it as a killed process leaves it."""
    passes = 0
    for event in events:
        passes += event.stage == "network" and event.done > 0
        if passes > after:
            break
    events.close()


@pytest.mark.parametrize("after", [3, 17, 40])
def test_a_stopped_run_goes_on_and_repeats_no_finished_block(tmp_path, volume, monkeypatch, after):
    target = tmp_path / "out.zarr"
    stopped(run_into(volume, bundle(), target, CPU), after)
    assert "multiscales" not in dict(zarr.open_group(str(target), mode="r").attrs)
    with pytest.raises(InputError, match="unfinished result of a run"):
        io.read(target)
    before = set(Journal(target).done())
    written = []
    write = Work.write
    monkeypatch.setattr(Work, "write", lambda self, key, *rest: written.append(key) or write(self, key, *rest))
    found = drain(run_into(volume, bundle(), target, CPU, resume=True))
    assert not before & set(written)
    assert len(before | set(written)) > 4
    wanted = run_to_end(volume, bundle(), CPU)
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
    assert [row.voxels for row in found.table] == [row.voxels for row in wanted.table]


def test_cancelled_between_two_passes_it_stays_unfinished(tmp_path, volume):
    cancel = threading.Event()
    events = run_into(volume, bundle(), tmp_path / "out.zarr", CPU, cancel)
    for event in events:
        if event.stage == "network" and event.done == 5:
            cancel.set()
            break
    assert drain(events).cancelled
    assert drain(run_into(volume, bundle(), tmp_path / "out.zarr", CPU, resume=True)).labels is not None


def test_without_a_word_nothing_that_is_there_is_touched(tmp_path, volume):
    target = tmp_path / "out.zarr"
    stopped(run_into(volume, bundle(), target, CPU), 3)
    with pytest.raises(OutputError, match=r"unfinished result of a run: go on with --resume, or .* --overwrite"):
        drain(run_into(volume, bundle(), target, CPU))
    drain(run_into(volume, bundle(), target, CPU, overwrite=True))
    with pytest.raises(OutputError, match="already there: add --overwrite"):
        drain(run_into(volume, bundle(), target, CPU))
    again = drain(run_into(volume, bundle(), target, CPU, resume=True))
    assert again.warnings == [f"{target} was finished already: nothing was left to do."]
    (tmp_path / "thesis").write_text("years of work")
    with pytest.raises(OutputError, match="no Zarr store"):
        drain(run_into(volume, bundle(), tmp_path / "thesis", CPU, overwrite=True))
    assert (tmp_path / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("what", ["image", "values", "bundle", "options"])
def test_what_was_begun_with_something_else_is_not_gone_on_with(tmp_path, volume, what, whole):
    target = tmp_path / "out.zarr"
    if whole:
        drain(run_into(volume, bundle(), target, CPU))
    else:
        stopped(run_into(volume, bundle(), target, CPU), 3)
    other = Volume(volume.data[:, :-1], volume.affine, name="image") if what == "image" else volume
    if what == "values":  # another frame or channel, or another image of the same name
        other = Volume(volume.data[:, ::-1], volume.affine, name="image")
    changed = bundle(sha256="1" * 64) if what == "bundle" else bundle()
    options = replace(CPU, overlap=0.25) if what == "options" else CPU
    said = "is whole, and the answer to another image" if whole else "begun with another image, bundle or options"
    with pytest.raises(OutputError, match=said):
        drain(run_into(other, changed, target, options, resume=True))


def test_a_whole_store_of_another_program_is_not_taken_for_a_finished_run(tmp_path, volume):
    target = tmp_path / "out.zarr"
    io.write(volume, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="does not say of what it is the answer: add --overwrite"):
        drain(run_into(volume, bundle(), target, CPU, resume=True))
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "out.zarr.unfinished").exists()


def test_two_runs_into_one_store_are_refused(tmp_path, volume):
    events = run_into(volume, bundle(), tmp_path / "out.zarr", CPU)
    while next(events).stage != "network":
        pass
    with pytest.raises(OutputError, match="another run is writing into"):
        drain(run_into(volume, bundle(), tmp_path / "out.zarr", CPU, resume=True))
    assert drain(events).labels is not None


def test_an_entry_that_was_cut_off_counts_for_nothing(tmp_path, volume):
    target = tmp_path / "out.zarr"
    stopped(run_into(volume, bundle(), target, CPU), 40)
    entries = sorted((tmp_path / "out.zarr.unfinished" / "done").rglob("*.json"))
    entries[0].write_text(entries[0].read_text()[:5])
    chunk = next(path for path in (target / "0").rglob("*") if path.is_file() and not path.name.startswith("."))
    assert chunk.exists()
    found = drain(run_into(volume, bundle(), target, CPU, resume=True))
    np.testing.assert_array_equal(np.asarray(found.labels.data), run_to_end(volume, bundle(), CPU).labels.data)


def test_an_object_store_is_written_and_gone_on_with(volume):
    target = "memory://run/out.zarr"
    stopped(run_into(volume, bundle(), target, CPU), 17)
    lock = Journal(target)
    assert lock.facts() is not None
    found = drain(run_into(volume, bundle(), target, CPU, resume=True))
    np.testing.assert_array_equal(np.asarray(found.labels.data), run_to_end(volume, bundle(), CPU).labels.data)


def test_a_lease_in_an_object_store_keeps_others_out_until_it_is_old(volume, monkeypatch):
    journal = Journal("memory://lease/out.zarr")
    with journal.locked(), pytest.raises(OutputError, match="another run is writing"), journal.locked():
        pass
    with journal.locked():
        held = json.loads(stores.get(journal.store, "lock.json"))
    stores.put(journal.store, "lock.json", json.dumps({**held, "of": "a killed run", "time": 0}).encode())
    with journal.locked():
        pass


@pytest.mark.parametrize("what", ["store", "store and journal"])
def test_a_store_that_goes_in_mid_run_is_told_and_none_looks_finished(tmp_path, volume, what):
    target = tmp_path / "out.zarr"
    events = run_into(volume, bundle(), target, CPU)
    while next(events).stage != "network" or not Journal(target).done():
        pass
    target.rename(tmp_path / "away")  # at once: the run goes on writing meanwhile
    if what != "store":
        (tmp_path / "out.zarr.unfinished").rename(tmp_path / "away.unfinished")
    # the second where it goes within the writing of a chunk
    with pytest.raises(OutputError, match=r"out\.zarr (went away while|cannot be written: No such file)"):
        drain(events)
    with pytest.raises(InputError):
        io.read(target)
    shutil.rmtree(target, ignore_errors=True)
    assert drain(run_into(volume, bundle(), target, CPU, overwrite=True)).labels is not None


def test_a_folder_that_is_read_only_is_told_before_anything_is_computed(tmp_path, volume, monkeypatch):
    from pathlib import Path

    make = Path.mkdir

    def refuse(self, *arguments, **how):
        if self.name.startswith("out.zarr"):
            raise OSError(errno.EROFS, "Read-only file system")
        return make(self, *arguments, **how)

    monkeypatch.setattr(Path, "mkdir", refuse)
    events = run_into(volume, bundle(), tmp_path / "out.zarr", CPU)
    with pytest.raises(OutputError, match=r"cannot be written \(Read-only file system\): choose another folder"):
        drain(events)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failing", [".zgroup", ".zattrs", "0/.zarray"])
def test_a_store_that_could_not_be_made_stays_away(tmp_path, volume, monkeypatch, failing):
    """Zarr writes side by side: when one file fails, others are still on their way to the disk."""
    whole, late = LocalStore.set, threading.Event()

    async def set_slowly(store, key, value):
        if key == failing:
            raise OSError(errno.EFBIG, "File too large")
        await asyncio.to_thread(late.wait, 0.2)  # long after the failure
        await whole(store, key, value)

    monkeypatch.setattr(LocalStore, "set", set_slowly)
    with pytest.raises(OutputError, match="cannot be written: the file grows larger"):
        drain(run_into(volume, bundle(), tmp_path / "out.zarr", CPU))
    settle()
    assert not list(tmp_path.iterdir())
