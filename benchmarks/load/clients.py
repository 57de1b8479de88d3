"""Many clients at one server with one device: all are served, each in its turn, and nothing is left.

    python -m benchmarks.load.clients [--clients 20] [--json FILE]

Each client is a thread that uploads an image, starts, reads the events and takes the labels. Prints whether runs
ended in the order in which they were started, whether all labels are the same bytes, and the server's memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.load.common import megabytes, tiny, write

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "sample_data" / "hippocampus_left.nii.gz"
REQUEST = {"bundle": "tiny", "cases": [{"inputs": [".nii.gz"], "outputs": {"output": ".nii.gz"}}]}


class Clients:
    """Clients of one server."""

    def __init__(self, address: str, token: str):
        self.address, self.token = address, token
        self.ended: list[int] = []
        self._started = 0
        self._one_at_a_time = threading.Lock()

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """A request; raises if it is refused."""
        import requests

        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {self.token}"}
            answer = session.request(method, self.address + path, headers=headers, timeout=600, **more)
            answer.raise_for_status()
            return answer

    def one(self, _: int) -> tuple[int, str]:
        """A client's whole way; returns which one it was to start, and the sum of its labels."""
        run = self.ask("POST", "/v1/runs", json=REQUEST).json()["id"]
        self.ask("PUT", f"/v1/runs/{run}/inputs/0/0", data=IMAGE.read_bytes())
        with self._one_at_a_time:
            self.ask("POST", f"/v1/runs/{run}/start")
            number = self._started = self._started + 1
        lines = self.ask("GET", f"/v1/runs/{run}/events").text.splitlines()
        last = json.loads([line for line in lines if line.startswith("data:")][-1][5:])
        if (last["event"], last.get("done")) != ("end", 1):
            raise RuntimeError(f"a run ended with {last}")
        with self._one_at_a_time:
            self.ended.append(number)
        found = hashlib.sha256(self.ask("GET", f"/v1/runs/{run}/outputs/0/output").content).hexdigest()
        self.ask("DELETE", f"/v1/runs/{run}")
        return number, found


def measure(count: int, folder: Path) -> dict[str, Any]:
    """Serve, let `count` clients in at once, and look at what came of it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    tiny(folder / "bundles")
    token = secrets.token_hex(16)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NAPARI_MAMBA_BUNDLES": str(folder / "bundles")}
    words = ["serve", "--port", str(port), "--device", "cpu", "--folder", str(folder / "served"), "--gone-after", "600"]
    line = [sys.executable, "-m", "napari_mamba", *words]
    server = subprocess.Popen(line, env={**environment, "NAPARI_MAMBA_SERVER_TOKEN": token})
    clients = Clients(f"http://127.0.0.1:{port}", token)
    try:
        _wait(clients, server)
        clients.one(0)
        before, began, clients.ended = megabytes(server.pid), time.perf_counter(), []
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(clients.one, range(count)))
        seconds = time.perf_counter() - began
        left = [path.name for path in (folder / "served").rglob("*") if path.is_file()]
        return {
            "clients": count,
            "served": len(found),
            "in_order": clients.ended == sorted(clients.ended),
            "different_answers": len({one for _, one in found}),
            "files_left": len(left),
            "seconds": round(seconds, 1),
            "server_mb": [round(before, 1), round(megabytes(server.pid), 1)],
        }
    finally:
        server.terminate()
        server.wait()


def _wait(clients: Clients, server: subprocess.Popen[bytes]) -> None:
    import requests

    for _ in range(600):
        try:
            clients.ask("GET", "/healthz")
            return
        except requests.exceptions.ConnectionError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the outcome to this file, for make_reliability.py")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write("server", measure(chosen.clients, Path(folder)), chosen.json)


if __name__ == "__main__":
    main()
