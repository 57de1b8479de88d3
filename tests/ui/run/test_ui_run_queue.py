"""The queue, the clock, the estimates and the cache: plain models, without a window and without an engine."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from napari_mamba.engine import Progress, Result, RunOptions
from napari_mamba.ui.run.choice.texts import ended_text, estimate_text, stage_text
from napari_mamba.ui.run.process.outcome import Outcome
from napari_mamba.ui.run.queue.cache import ResultCache, run_key, size_of
from napari_mamba.ui.run.queue.clock import TimeLimit
from napari_mamba.ui.run.queue.estimates import Estimates, Measured
from napari_mamba.ui.run.queue.jobs import Job, Queue, State
from napari_mamba.volume import Volume


def job(title: str = "scan") -> Job:
    bundle = SimpleNamespace(name="tiny")
    return Job(title=title, bundle=bundle, options=RunOptions(), read=lambda: None)  # type: ignore[arg-type]


def labels(value: int = 1, size: int = 4) -> Result:
    return Result(labels=Volume(np.full((1, size, size, size), value, np.uint8)))


def test_jobs_run_one_after_the_other_in_their_order():
    queue, first, second = Queue(), job("a"), job("b")
    queue.add(first, second)
    assert queue.take_next() is first
    assert queue.take_next() is None, "one at a time"
    queue.end(first, Outcome(labels()))
    assert (first.state, second.state) == (State.DONE, State.WAITING)
    assert queue.take_next() is second
    queue.end(second, Outcome(error="No."))
    assert (second.state, second.sentence, queue.busy) == (State.FAILED, "No.", False)


def test_the_end_says_what_computed_and_who_scanned():
    queue, one = Queue(), job()
    queue.add(one)
    queue.take_next()
    device = {"name": "NVIDIA H200", "precision": "float16", "scan": "cuda"}
    queue.end(one, Outcome(Result(scores={"a": 1.0}, provenance={"device": device})))
    one.seconds = 12.0
    assert ended_text(one) == ("Done in 12 s on NVIDIA H200 (float16, scan by CUDA kernels).", "good")
    one.ran_on = ""
    assert ended_text(one) == ("Done in 12 s.", "good"), "a server of an earlier version does not say"


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_says_that_it_stops():
    queue, jobs, ended = Queue(), [job(name) for name in "abc"], []
    queue.ended.connect(ended.append)
    queue.add(*jobs)
    queue.take_next()
    queue.stop(jobs[1])
    assert jobs[1].state is State.CANCELLED
    assert ended == [jobs[1]]
    queue.stop_all()
    assert [one.state for one in jobs] == [State.STOPPING, State.CANCELLED, State.CANCELLED]
    assert jobs[0].cancel.is_set()
    assert stage_text(jobs[0], 0.0) == "Stopping. Nothing will be added."
    queue.progress(jobs[0], Progress("network", 5, 8))
    assert stage_text(jobs[0], 0.0).startswith("Stopping"), "whatever the engine still says"
    queue.end(jobs[0], Outcome(Result(cancelled=True)))
    assert ended_text(jobs[0]) == ("Cancelled. Nothing was added.", "hint")
    queue.clear()
    assert queue.jobs == []


def test_a_result_that_comes_after_cancelling_is_not_taken():
    queue, one = Queue(), job()
    queue.add(one)
    queue.take_next()
    queue.stop(one)
    queue.end(one, Outcome(labels()))
    assert (one.state, one.result) == (State.CANCELLED, None)


def test_the_bar_moves_within_the_first_pass_where_runs_were_measured():
    clock = TimeLimit(expected=20.0, pass_seconds=4.0)
    clock.start(100.0)
    clock.update(Progress("preparing", 0, 1), 100.5)
    clock.update(Progress("network", 0, 4), 102.0)
    shares = [clock.fraction(102.0 + t) for t in (0.0, 1.0, 2.0, 3.0)]
    assert shares == sorted(shares)
    assert len(set(shares)) == 4
    # 4 passes of 4 s, 2 s before them, so 2 s after them
    assert clock.seconds_left(102.0) == pytest.approx(18.0)
    assert clock.seconds_left(103.0) == pytest.approx(17.0)


def test_the_time_left_is_the_whole_runs_and_follows_its_own_pace():
    clock = TimeLimit(expected=20.0, pass_seconds=4.0)
    clock.start(0.0)
    clock.update(Progress("network", 0, 4), 2.0)
    clock.update(Progress("network", 1, 4), 10.0)  # 8 s a pass: another machine than it was
    assert clock.seconds_left(10.0) == pytest.approx(3 * 8 + 2)
    clock.update(Progress("network", 4, 4), 34.0)
    clock.update(Progress("restoring", 0, 1), 34.0)
    assert clock.seconds_left(34.0) == pytest.approx(0.0)


def test_without_measurements_nothing_is_claimed_before_the_first_pass():
    clock = TimeLimit()
    clock.start(0.0)
    assert clock.fraction(1.0) is None
    clock.update(Progress("network", 0, 4), 1.0)
    assert clock.seconds_left(5.0) is None
    clock.update(Progress("network", 1, 4), 3.0)
    assert clock.seconds_left(3.0) == pytest.approx(6.0)
    clock.update(Progress("network", 0, 8), 4.0)  # begins again with smaller tiles
    assert clock.seconds_left(4.0) is None


def test_estimates_are_measured_remembered_and_scaled(tmp_path):
    path = tmp_path / "cache" / "runs.json"
    estimates = Estimates(path)
    assert estimates.estimate("k", 10, 1000) is None
    estimates.add("k", Measured(seconds=12.0, network_seconds=10.0, passes=5, voxels=1000, memory=100))
    again = Estimates(path)
    same = again.estimate("k", 5, 1000)
    assert (same.seconds, same.memory, same.pass_seconds) == (12.0, 100, 2.0)
    double = again.estimate("k", 10, 2000)
    assert double.seconds == pytest.approx(24.0)
    assert double.memory == 200
    small = again.estimate("k", 1, 10)
    assert small.seconds == pytest.approx(4.0), "loading takes its time however small the image"
    assert small.memory == 100
    assert again.estimate("other", 1, 10) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"k": [{"seconds": 1}]}'])
def test_a_damaged_memory_of_runs_is_none(tmp_path, text):
    path = tmp_path / "runs.json"
    path.write_text(text)
    assert Estimates(path).estimate("k", 1, 1) is None
    estimates = Estimates(path)
    estimates.add("k", Measured(1.0, 1.0, 1, 1, 1))
    assert Estimates(path).estimate("k", 1, 1) is not None


def test_an_estimate_says_that_memory_will_not_do():
    estimates = Estimates.estimate
    assert estimates is not None
    from napari_mamba.ui.run.queue.estimates import Estimate

    text = estimate_text(Estimate(60.0, 4 * 2**30, 1.0, 1), free=2**30)
    assert "more than the 1 GB that are free" in text


def key(volume: Volume, **options) -> str:
    bundle = SimpleNamespace(sha256="abc")
    return run_key(volume, bundle, RunOptions(**options))  # type: ignore[arg-type]


def test_runs_are_the_same_only_where_everything_is():
    rng = np.random.default_rng(0)
    volume = Volume(rng.random((1, 4, 5, 6)), name="a")
    changed = np.array(volume.data)
    changed[0, 0, 0, 0] += 1e-9
    moved = np.eye(4)
    moved[0, 3] = 1e-3
    others = [
        key(volume.with_data(changed)),
        key(Volume(volume.data, moved, name="a")),
        key(Volume(volume.data.astype("f4"), name="a")),
        key(volume, tile=32),
    ]
    assert key(volume) == key(Volume(volume.data.copy(), name="a"))
    assert len({key(volume), *others}) == 5
    strided = Volume(np.asfortranarray(volume.data), name="a")
    assert key(strided) == key(volume)


def test_the_cache_hands_out_copies_and_lets_the_oldest_go():
    cache = ResultCache(limit=3 * 64)
    for name in "abc":
        cache.put(name, labels())
    got = cache.get("a")
    got.labels.data[:] = 7  # painted
    assert cache.get("a").labels.data.max() == 1
    cache.put("d", labels())
    assert cache.get("b") is None, "the one not used for longest"
    assert cache.get("a") is not None
    cache.put("huge", labels(size=9))
    assert cache.get("huge") is None
    cache.limit = 64
    cache.trim()
    assert len(cache) == 1
    assert size_of(labels()) == 64
