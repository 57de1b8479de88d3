"""Does installing napari-mamba leave Slicer's packages as they are, and does a run succeed with them?

    python check_install.py PYTHON PINS.txt > install.txt

PYTHON is a Python 3.12 as Slicer has; PINS.txt lists the packages that a version of Slicer brings, one name==version
a line. Made is an environment with these; the module's own installation is carried out in it (PyTorch by pip, since
the extension PyTorch is not at hand), from the checkout that this file is in; then `hippocampus-mr` runs on the sample.
It needs a network, some GB and some minutes. This is not Slicer's Python: only its packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "MambaImaging"))

from MambaImagingLib.compute import installing  # noqa: E402
from MambaImagingLib.compute.processes import Process  # noqa: E402

FREEZE = "import json, sys; sys.path.insert(0, sys.argv[1]); from MambaImagingLib.compute import installing; "
FREEZE += "print(json.dumps(installing.installed()))"


def main(python: str, pins: Path) -> int:
    """See the module's docstring."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", f"{folder}/env"], check=True)
        inner = f"{folder}/env/bin/python"
        subprocess.run([inner, "-m", "pip", "install", "--quiet", "-r", str(pins)], check=True)

        def freeze() -> dict[str, str]:
            line = [inner, "-c", FREEZE, str(HERE / "MambaImaging")]
            return json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)

        def torch() -> None:
            hold = Path(folder) / "hold.txt"
            hold.write_text(installing.constraints(freeze()), encoding="utf-8")
            line = [inner, "-m", "pip", "install", "--quiet", "-c", str(hold), f"torch{installing.TORCH}"]
            subprocess.run(line, check=True)

        def pip(words: list[str]) -> Process:
            return Process([inner, "-m", "pip", *words])

        before, began = freeze(), time.monotonic()
        print(f"# {pins.name}: {len(before)} packages, Python {sys.version.split()[0]}")
        installation = installing.Installation(pip, torch, freeze, Path(folder), source=str(HERE.parent))
        while (ended := installation.poll()) is None:
            time.sleep(0.2)
        print(f"error: {ended.error or 'none'}; {len(ended.added)} packages added, {len(ended.changed)} changed")
        print(f"took {time.monotonic() - began:.0f} s")
        for name, version in sorted(before.items()):
            print(f"{name}=={version}" + ("" if freeze().get(name) == version else "  CHANGED"))
        if ended.error:
            print(*ended.log[-15:], sep="\n")
            return 1
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        line = [
            inner,
            "-m",
            "napari_mamba",
            "run",
            "hippocampus-mr",
            str(HERE.parent / "sample_data/hippocampus_left.nii.gz"),
        ]
        done = subprocess.run(
            [*line, "-o", f"{folder}/labels.nii.gz"], env=environment, cwd=folder, capture_output=True, text=True
        )
        print(done.stdout.replace(folder, "."), done.stderr.replace(folder, "."), sep="")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
