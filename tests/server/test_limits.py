"""Limits that several requests at once, or slow ones, must not pass: in this process, where time-outs can be short."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")

import uvicorn

from napari_mamba.server import Settings
from napari_mamba.server.app import make_app
from napari_mamba.server.patience import protocol_with_patience
from napari_mamba.server.requests import RunRequest
from napari_mamba.server.store import Full, RunFiles, Upload

REQUEST = RunRequest.model_validate(
    {"bundle": "tiny", "cases": [{"inputs": [".nii", ".nii"], "outputs": {"output": ".nrrd"}}]}
)


@pytest.fixture
def files(tmp_path):
    return RunFiles(tmp_path, "1", REQUEST, limit=100)


def test_two_uploads_at_once_keep_the_limit_of_the_run(files):
    first, second = (Upload(files.input(0, channel), 80, files) for channel in (0, 1))
    with first:
        first.write(bytes(60))
        with pytest.raises(Full, match="files of this run"), second:  # noqa: PT012  what is left is looked at
            second.write(bytes(30))
            second.write(bytes(30))
        assert files.bytes == 60
        first.write(bytes(20))
    assert files.bytes == 80
    assert not files.input(0, 1).exists()


def test_a_channel_that_is_sent_again_counts_once(files):
    for size in (40, 30, 70):
        with Upload(files.input(0, 0), 80, files) as upload:
            upload.write(bytes(size))
        assert files.bytes == size


def asked(app, method: str, path: str, messages) -> list[dict]:
    """Give an application one request; returns what it answers."""
    answers: list[dict] = []

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"20"), (b"content-type", b"application/json")],
        "scheme": "http", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1), "http_version": "1.1", "root_path": "", "asgi": {},
    }  # fmt: skip
    asyncio.run(app(scope, messages, send))
    return answers


def test_a_slow_json_body_is_ended(tmp_path):
    app = make_app(Settings(folder=tmp_path, stalled_seconds=0.2))

    async def trickle():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b" ", "more_body": True}

    answers = asked(app, "POST", "/v1/runs", trickle)
    assert answers[0]["status"] == 408
    assert b"took too long" in answers[1]["body"]


def test_a_body_in_pieces_arrives_whole(tmp_path):
    app = make_app(Settings(folder=tmp_path))
    pieces = iter([b'{"bundle":', b' "none", "cases": [{"inputs": [".nii"]}]}'])

    async def receive():
        return {"type": "http.request", "body": next(pieces), "more_body": pieces.__length_hint__() > 0}

    answers = asked(app, "POST", "/v1/runs", receive)
    assert answers[0]["status"] == 404
    assert b"no bundle none" in answers[1]["body"]


def test_a_client_that_goes_away_before_its_bodys_end_is_left(tmp_path):
    app = make_app(Settings(folder=tmp_path))

    async def gone():
        return {"type": "http.disconnect"}

    assert asked(app, "POST", "/v1/runs", gone) == []


def test_many_requests_at_once_keep_the_number_of_runs(tmp_path, monkeypatch, tiny_bundle):
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tiny_bundle.parent))
    app = make_app(Settings(folder=tmp_path, most_runs=3))
    create = next(route.endpoint for route in app.routes if getattr(route, "path", "") == "/v1/runs")
    barrier = threading.Barrier(8)

    def one(_: int) -> bool:
        from fastapi import HTTPException

        barrier.wait()
        try:
            create(REQUEST)
        except HTTPException as error:
            return error.status_code != 429
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 3
    assert len(app.state.service.runs) == 3


class Served(threading.Thread):
    """An application on a socket, in a thread."""

    def __init__(self, app, seconds: float):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, http=protocol_with_patience(seconds), log_level="error", lifespan="off")
        self.server = uvicorn.Server(config)
        self.start()

    def run(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.socket]))

    def closed_after(self, sent: list[bytes], pause: float) -> bytes:
        """Send pieces with pauses between, and wait until the server closes; returns what it answered."""
        with socket.create_connection(self.socket.getsockname()) as client:
            client.settimeout(30)
            for piece in sent:
                client.sendall(piece)
                time.sleep(pause)
            answer = b""
            while got := client.recv(4096):
                answer += got
            return answer


def test_headers_that_do_not_arrive_are_not_waited_for(tmp_path):
    served = Served(make_app(Settings(folder=tmp_path)), 0.5)
    try:
        assert served.closed_after([], 0) == b""
        assert served.closed_after([b"GET /healthz HTTP/1.1\r\nHost: 127.0", b"."], 0.1) == b""
        whole = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        assert b"200 OK" in served.closed_after([whole + b"Connection: close\r\n\r\n"], 0)
        second = served.closed_after([whole + b"\r\n", b"GET /healthz HTTP/1.1\r\n"], 0.1)
        assert second.count(b"200 OK") == 1
    finally:
        served.server.should_exit = True
        served.join()
