"""Peak memory of `napari-mamba serve`, and of the Slicer extension's client, while 1 GB is uploaded over the loopback.

    python -m benchmarks.server.memory [GIGABYTES]

The client runs in a process of its own, as it does in Slicer. Resident memory as the kernel counts it, at its peak.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PORT = 18471
CLIENT = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from MambaImagingLib.compute.client import Client
client = Client(sys.argv[2])
request = {"bundle": "hippocampus-mr", "cases": [{"inputs": [".nii"], "outputs": {}}]}
run = client.create(request)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
client.upload(run, 0, 0, Path(sys.argv[3]))
took = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
client.ask("DELETE", f"/v1/runs/{run}")
print(f"client: peak {peak / 1024:.0f} MB, {(peak - before) / 1024:.0f} MB more than before; {took:.1f} s")
"""


def peak_of(pid: int) -> float:
    """Peak resident memory of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM: this runs on Linux alone")


def main(gigabytes: float = 1.0) -> None:
    """Upload, and print both peaks."""
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.nii"
        with open(large, "wb") as file:
            file.truncate(int(gigabytes * (1 << 30)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        words = ["serve", "--port", str(PORT), "--device", "cpu", "--folder", f"{folder}/served"]
        server = subprocess.Popen([sys.executable, "-m", "napari_mamba", *words], env=environment)
        try:
            time.sleep(5)
            before = peak_of(server.pid)
            line = [sys.executable, "-c", CLIENT, str(ROOT / "slicer_extension" / "MambaImaging")]
            subprocess.run([*line, f"http://127.0.0.1:{PORT}", str(large)], check=True)
            peak = peak_of(server.pid)
            print(f"server: peak {peak:.0f} MB, {peak - before:.0f} MB more than before; {gigabytes:g} GB uploaded")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
