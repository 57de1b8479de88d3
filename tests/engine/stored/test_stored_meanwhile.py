"""What is done beside the network: tiles made ahead, coarser levels made as soon as they can be, the device's time."""

from __future__ import annotations

import itertools
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import zarr
from engine_fakes import Apply, fake_bundle, two_classes
from stored_fakes import drain

from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.stored import layout as layout_module
from napari_mamba.engine.stored.assembling import Writer
from napari_mamba.engine.stored.finishing import pyramid
from napari_mamba.engine.stored.finishing.coarsening import Coarsening, threads_for
from napari_mamba.engine.stored.finishing.pyramid import coarser, factors, finer_box, parts
from napari_mamba.engine.stored.finishing.remembered import Remembered
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.layout import Layout
from napari_mamba.engine.stored.reading.bands import Prefetched
from napari_mamba.engine.stored.run import run_into
from napari_mamba.engine.stored.times import Times
from napari_mamba.engine.stored.work import Work
from napari_mamba.engine.tiling.pace import AHEAD, Pace
from napari_mamba.errors import RunError
from napari_mamba.volume import Volume

SHAPE, CHUNKS, BLOCK = (300, 140, 520), (64, 128, 128), (64, 128, 256)


class Written:
    """In the place of `Work`: notes the parts that are made, and of what was there at that moment."""

    class Cpu:
        torch_device = torch.device("cpu")

    def __init__(self):
        layout = Layout(SHAPE, 0, CHUNKS, BLOCK)
        self.boxes, self.device = layout.boxes(), self.Cpu()
        self.made, self.lock = [], threading.Lock()

    def coarsen(self, level, key, box, step):
        with self.lock:
            self.made.append((level, key, box, step))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_part_is_made_when_all_that_it_is_made_of_is_written_and_once(seed):
    work, scales = Written(), factors(SHAPE, (1, 1, 1))
    shapes = [coarser(SHAPE, one) for one in scales]
    steps = [tuple(a // b for a, b in zip(*pair, strict=True)) for pair in zip(scales[1:], scales[:-1], strict=True)]
    order = list(np.random.default_rng(seed).permutation(list(work.boxes)))
    there = np.zeros(SHAPE, bool)
    with Coarsening(work, shapes, steps, CHUNKS, BLOCK, list(work.boxes), {}) as coarsening:
        assert not work.made
        for key in order:
            there[work.boxes[key]] = True
            coarsening.written(key)
            coarsening.pool.submit(lambda: None).result()  # one thread: what was begun before is done
            with work.lock:
                for _, _, box, _ in [one for one in work.made if one[0] == 1]:
                    assert there[finer_box(box, steps[0], SHAPE)].all()
        assert list(coarsening.rest()) == list(range(1, coarsening.total + 1))
    wanted = [parts(shape, level, tuple(map(min, CHUNKS, shape))) for level, shape in enumerate(shapes[1:], 1)]
    assert sorted(key for _, key, _, _ in work.made) == sorted(itertools.chain(*wanted))
    assert [level for level, *_ in work.made][-1] == len(shapes) - 1


def test_what_an_earlier_run_has_made_is_not_made_again_and_an_error_is_told():
    work, scales = Written(), factors(SHAPE, (1, 1, 1))
    shapes = [coarser(SHAPE, one) for one in scales]
    steps = [tuple(a // b for a, b in zip(*pair, strict=True)) for pair in zip(scales[1:], scales[:-1], strict=True)]
    first = next(iter(parts(shapes[1], 1, CHUNKS)))
    with Coarsening(work, shapes, steps, CHUNKS, BLOCK, list(work.boxes), {*work.boxes, first}) as coarsening:
        list(coarsening.rest())
    assert first not in {key for _, key, _, _ in work.made}

    def full(*_):
        raise OSError("no space left")

    work.coarsen = full
    with (
        Coarsening(work, shapes, steps, CHUNKS, BLOCK, list(work.boxes), set(work.boxes)) as coarsening,
        pytest.raises(OSError, match="no space left"),
    ):
        list(coarsening.rest())


def test_on_a_cpu_one_thread_makes_them():
    assert threads_for(torch.device("cpu")) == 1 <= threads_for(torch.device("cuda"))


def test_tiles_come_in_their_order_and_so_many_are_made_ahead():
    starts = list(itertools.product(range(3), range(2), range(1)))
    made, allowed = [], threading.Semaphore(0)

    def read(start):
        allowed.acquire()
        made.append(start)
        return np.array(start)

    with Prefetched(read, starts, 2) as prefetched:
        assert [one for one, _ in prefetched.coming] == starts[:2]
        for start in starts:
            allowed.release()
            np.testing.assert_array_equal(prefetched(start), start)
    assert made == starts
    assert prefetched.waited > 0


def test_what_goes_wrong_with_a_tile_made_ahead_is_raised_where_it_is_asked_for():
    def read(start):
        raise OSError("a damaged chunk")

    with Prefetched(read, [(0, 0, 0)], 4) as prefetched, pytest.raises(OSError, match="a damaged chunk"):
        prefetched((0, 0, 0))


def test_so_many_blocks_are_written_at_a_time_and_an_error_is_raised():
    allowed, begun, there = threading.Semaphore(0), threading.Semaphore(0), []

    def write(key, box, block):
        begun.release()
        allowed.acquire()
        if key == "d":
            raise OSError("no space left")
        there.append(key)

    with Writer(write, 2) as writer:
        writer.put("a", None, None)
        writer.put("b", None, None)
        assert all(begun.acquire(timeout=10) for _ in range(2))  # both at once, nothing is done
        assert not there
        allowed.release(2)
        writer.put("c", None, None)
        allowed.release(2)
        writer.put("d", None, None)
        with pytest.raises(OSError, match="no space left"):
            writer.finish()
    assert sorted(there) == ["a", "b", "c"]


def test_blocks_that_are_written_by_two_threads_are_the_same(tmp_path, monkeypatch):
    for name, value in (("CHUNK", 16), ("LAYER", 8), ("MOST_MEMORY", 2**18)):
        monkeypatch.setattr(layout_module, name, value)
    monkeypatch.setattr(Work, "writer", lambda work: Writer(work.write, 2))
    volume = Volume(np.random.default_rng(0).random((1, 32, 40, 36), np.float32), name="image")
    bundle, options = fake_bundle(Apply(two_classes), classes=2), RunOptions(device="cpu")
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    np.testing.assert_array_equal(np.asarray(found.labels.data), run_to_end(volume, bundle, options).labels.data)
    assert set(np.unique(found.labels.data)) == {0, 1}
    assert sum(row.voxels for row in found.table if row.index == 1) == int(np.asarray(found.labels.data).sum())


class Mark:
    """A moment on a device whose passes take two seconds each, and which waits one between them."""

    now = 0.0

    def __init__(self, device):
        Mark.now += 1.0 if Mark.now % 3 == 0 else 2.0
        self.at, self.waited = Mark.now, False

    def synchronize(self):
        self.waited = True

    def elapsed_time(self, other):
        assert other.waited
        return 1000 * (other.at - self.at)


def test_the_device_s_time_is_that_of_its_passes_alone():
    pace, device = Pace(Mark), torch.device("cuda")
    for _ in range(5):
        pace.begins(device)
        pace.passed(device)
    assert len(pace.waiting) == AHEAD
    assert pace.computed == 2.0 * (5 - AHEAD)
    pace.finish()
    assert pace.computed == 10.0


def test_the_share_is_of_the_whole_time():
    times = Times(began=0.0)
    times.add({"computing": 3.0, "reading": 0.5, "writing": 0.25})
    facts = times.facts(1)
    assert facts["share_computed"] == pytest.approx(3.0 / sum(facts["seconds"].values()), abs=1e-3)
    assert facts["bounded_by"] == "waiting"


class Moment:
    """In the place of a CUDA event or stream where there is no GPU: all is done as soon as it is asked for."""

    def __init__(self, *_, **__):
        pass

    def record(self, *_):
        pass

    synchronize = wait_event = record


@pytest.fixture
def as_beside_a_gpu(monkeypatch):
    """A CPU that is treated as a GPU is, by all but the scan's kernels."""
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Moment)
    monkeypatch.setattr(torch.cuda, "current_stream", Moment)
    monkeypatch.setattr(torch.cuda, "stream", lambda one: nullcontext())
    monkeypatch.setattr(Work, "beside_a_gpu", True)
    for name, value in (("CHUNK", 16), ("LAYER", 8), ("MOST_MEMORY", 2**18)):
        monkeypatch.setattr(layout_module, name, value)
    monkeypatch.setattr(pyramid, "COARSEST", 20)
    monkeypatch.setattr(pyramid, "PART", 16)


def levels(target):
    group = zarr.open_group(str(target), mode="r")
    return [group[name][...] for name in sorted(group.array_keys())]


def restoring():
    return fake_bundle(Apply(lambda x: x * 1.5 + torch.linspace(0, 1, 16)), task="restoration")


@pytest.mark.parametrize("task", ["segmentation", "restoration"])
@pytest.mark.parametrize("size", [(32, 40, 36), (33, 71, 51)])
def test_what_is_done_beside_a_gpu_changes_nothing(tmp_path, as_beside_a_gpu, monkeypatch, task, size):
    bundle = fake_bundle(Apply(two_classes), classes=2) if task == "segmentation" else restoring()
    volume = Volume(np.random.default_rng(0).random((1, *size), np.float32), name="image")
    options, read, begun = RunOptions(device="cpu"), [], []
    coarsen, begin = Work.coarsen, Work.begin_reading
    monkeypatch.setattr(Work, "coarsen", lambda self, *one: read.append(one) or coarsen(self, *one))
    monkeypatch.setattr(Work, "begin_reading", lambda self, keys: begun.append(keys) or begin(self, keys))
    drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    assert read == []  # each part of a coarser level came from memory
    assert len(begun) > 2
    assert begun[-1] == ()
    monkeypatch.setattr(Work, "beside_a_gpu", False)
    drain(run_into(volume, bundle, tmp_path / "plain.zarr", options))
    assert read
    found, wanted = levels(tmp_path / "out.zarr"), levels(tmp_path / "plain.zarr")
    assert len(found) == len(wanted) > 1
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    result = run_to_end(volume, bundle, options)
    plain = result.labels if task == "segmentation" else result.image
    np.testing.assert_allclose(found[0], plain.data, atol=1e-6 if task == "restoration" else 0)


def test_beside_a_gpu_nan_is_found_before_its_block_is_written(tmp_path, as_beside_a_gpu):
    volume = Volume(np.random.default_rng(0).random((1, 32, 40, 36), np.float32), name="image")
    broken = fake_bundle(Apply(lambda x: two_classes(x) / 0.0 * 0.0), classes=2)
    with pytest.raises(RunError, match="NaN or infinity"):
        drain(run_into(volume, broken, tmp_path / "out.zarr", RunOptions(device="cpu")))
    assert Journal(tmp_path / "out.zarr").done() == {}


def test_where_there_is_no_room_parts_are_not_remembered():
    shapes, steps, box = [(4, 4, 4), (2, 2, 2)], [(2, 2, 2)], (slice(0, 4),) * 3
    block = np.arange(64, dtype=np.float32).reshape(1, 4, 4, 4)
    for room in (31, 32):
        remembered = Remembered(shapes, steps, (4, 4, 4), labels=False, room=room)
        remembered.take(0, box, block)
        assert (remembered.give("1/0.0.0") is None) == (room == 31)
    for _ in range(2):  # half of it, and again, where an attempt was repeated
        remembered.take(0, (slice(0, 2), *box[1:]), block[:, :2])
    assert remembered.give("1/0.0.0") is None
    assert remembered.room == 32


@pytest.mark.gpu
def test_on_a_gpu_the_store_holds_what_a_run_in_memory_answers(tmp_path, monkeypatch):
    for name, value in (("CHUNK", 16), ("LAYER", 8), ("MOST_MEMORY", 2**18)):
        monkeypatch.setattr(layout_module, name, value)
    volume = Volume(np.random.default_rng(0).random((1, 32, 40, 36), np.float32), name="image")
    options = RunOptions(device="cuda", precision="float32")
    found = drain(run_into(volume, fake_bundle(Apply(two_classes), classes=2), tmp_path / "out.zarr", options))
    wanted = run_to_end(volume, fake_bundle(Apply(two_classes), classes=2), options)
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
    assert 0 < found.provenance["stored"]["share_computed"] < 1
