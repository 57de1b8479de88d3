"""Tasks on workers: all of them, once, whatever dies; and a sentence where a cluster cannot be used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cluster_fakes
import pytest

from napari_mamba.cluster import connect, connecting, spreading
from napari_mamba.cluster.spreading import spread
from napari_mamba.errors import InputError, OutOfMemoryError, RunError

pytest.importorskip("distributed")


def values(found):
    return {number: outcome.result() for number, outcome in found}


def test_every_task_ends_on_some_worker(cluster):
    assert values(spread(cluster, cluster_fakes.doubled, [(i,) for i in range(20)])) == {i: 2 * i for i in range(20)}
    seen = set()
    for _ in range(100):  # a worker that is held up by the machine takes none of a few tasks
        seen |= set(values(spread(cluster, cluster_fakes.process, [(i,) for i in range(4)])).values())
        if len(seen) == 2:
            break
    assert len(seen) == 2


def test_few_tasks_are_with_the_scheduler_at_a_time(cluster, monkeypatch):
    flying, most = 0, 0
    submit = type(cluster.client).submit

    def counted(self, *arguments, **how):
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        return submit(self, *arguments, **how)

    monkeypatch.setattr(type(cluster.client), "submit", counted)
    for _ in spread(cluster, cluster_fakes.doubled, [(i,) for i in range(30)]):
        flying -= 1
    assert most <= 2 * 2 + 2


def test_a_lost_worker_s_task_is_done_again(cluster, tmp_path):
    tasks = [(str(tmp_path), i) for i in range(8)]
    assert values(spread(cluster, cluster_fakes.dies_once, tasks)) == {i: i for i in range(8)}
    assert (tmp_path / "3").read_text() == "died"


def test_a_worker_s_error_comes_back_as_the_same_sentence(cluster):
    ((_, outcome),) = spread(cluster, cluster_fakes.refuses, [(7,)])
    with pytest.raises(InputError, match="7 is no good: give another"):
        outcome.result()


def test_a_task_of_which_workers_die_again_and_again_ends_the_run(cluster, monkeypatch):
    monkeypatch.setattr(spreading, "_MOST_DEATHS", 0)
    ((_, outcome),) = spread(cluster, cluster_fakes.dies, [(0,)])
    with pytest.raises(OutOfMemoryError, match="die of this again and again"):
        outcome.result()
    assert cluster.workers  # the nannies start new ones


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setattr(connecting, "_CONNECT", "1s")
    wanted = r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: start one"
    with pytest.raises(InputError, match=wanted), connect("tcp://127.0.0.1:9"):
        pass


def test_another_version_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(connecting, "__version__", "0.0.1")
    with pytest.raises(InputError, match=r"has napari-mamba .*, this is 0\.0\.1: install the same version"):
        connecting._check_workers(cluster.client, "tcp://here")
    versions = {"client": {"packages": {"distributed": "1"}}, "scheduler": {"packages": {"distributed": "2"}}}
    monkeypatch.setattr(type(cluster.client), "get_versions", lambda self, check: versions)
    with pytest.raises(InputError, match="runs distributed 2, this is 1: install the same version on both"):
        connecting._check_scheduler(cluster.client, "tcp://here")


@pytest.fixture
def outside():
    """Starts and ends processes of a cluster as a person would."""
    started = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path.cwd())])}

    def start(*line):
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *map(str, line)], env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_scheduler_that_is_restarted_in_mid_run_ends_nothing(outside):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = outside("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    workers = [outside("worker", address, "--nthreads", 1, "--no-dashboard", "--no-nanny")]
    with connected(address) as cluster:
        found = {}
        for number, outcome in spread(cluster, cluster_fakes.doubled, [(i, 0.3) for i in range(12)]):
            found[number] = outcome.result()
            if len(found) == 3:
                for process in (scheduler, *workers):
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                restart = threading.Timer(1.0, lambda: (
                    outside("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"),
                    outside("worker", address, "--nthreads", 1, "--no-dashboard", "--no-nanny"),
                ))  # fmt: skip
                restart.start()
        restart.join()
    assert found == {i: 2 * i for i in range(12)}


def connected(address):
    for _ in range(60):
        try:
            entered = connect(address)
            return Entered(entered, entered.__enter__())
        except InputError:
            time.sleep(1)
    raise AssertionError("the scheduler does not start")


class Entered:
    """A context that was entered already."""

    def __init__(self, context, value):
        self.context, self.value = context, value

    def __enter__(self):
        return self.value

    def __exit__(self, *error):
        return self.context.__exit__(*error)


def test_a_scheduler_that_stays_away_is_told(monkeypatch):
    monkeypatch.setattr(connecting, "_CONNECT", "1s")

    class Gone:
        status = "closed"

    with pytest.raises(RunError, match=r"the scheduler tcp://127\.0\.0\.1:9 is gone: start it again, and go on"):
        _ = connecting.Cluster(Gone(), "tcp://127.0.0.1:9", patience=0.1).client
