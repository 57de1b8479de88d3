"""A server in a process of its own, on the loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

requests = pytest.importorskip("requests")
pytest.importorskip("fastapi")

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    token: str

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> Any:
        """A request as a client sends it, without the help of the client's own code."""
        session = requests.Session()
        session.trust_env = False
        headers = more.pop("headers", {})
        token = self.token if token is None else token
        if token:
            headers = {"Authorization": f"Bearer {token}", **headers}
        return session.request(method, self.address + path, headers=headers, timeout=60, **more)

    def left(self) -> list[Path]:
        """The files of runs that are still there: unlike rglob, os.walk goes on where a folder goes while it looks."""
        return [Path(folder, name) for folder, _, names in os.walk(self.folder) for name in names]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Callable[..., Served]]:
    """Start servers whose only own bundle is the tiny one; all are ended."""
    started: list[Served] = []

    def start(*words: object, token: str = "", folder: Path | None = None, port: int | None = None) -> Served:
        port = port or free_port()
        folder = folder or tmp_path_factory.mktemp("served")
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "NAPARI_MAMBA_BUNDLES": str(tiny_bundle.parent),
            "NAPARI_MAMBA_SERVER_TOKEN": token,
        }
        line = [sys.executable, "-m", "napari_mamba", "serve", "--port", str(port), "--folder", str(folder)]
        if "--device" not in words:
            line += ["--device", "cpu"]
        process = subprocess.Popen([*line, *map(str, words)], env=environment, stderr=subprocess.PIPE)
        served = Served(process, port, folder, token)
        started.append(served)
        end = time.monotonic() + 300  # as slow a machine as it is
        while time.monotonic() < end:
            try:
                if served.ask("GET", "/healthz").ok:
                    return served
            except requests.exceptions.ConnectionError:
                time.sleep(0.05)
            if process.poll() is not None:
                break
        served.kill()  # else there would be no end of what it says
        raise AssertionError(f"the server did not start: {process.stderr.read() if process.stderr else ''!r}")

    yield start
    for served in started:
        served.process.terminate()
    for served in started:
        try:
            served.process.wait(10)
        except subprocess.TimeoutExpired:
            served.kill()
        if served.process.stderr:
            served.process.stderr.close()
