"""Installing into Slicer's Python: nothing of Slicer's changes, and a failure leaves it as it was."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

SLICERS = {"numpy": "2.0.2", "scipy": "1.13.1", "requests": "2.32.3"}


class FakePip:
    """`python -m pip` that changes a table of packages instead of a disk."""

    def __init__(self, packages, outcomes):
        self.packages, self.outcomes, self.calls = packages, outcomes, []

    def __call__(self, words):
        self.calls.append(words)
        if "--constraint" in words:
            self.held = Path(words[words.index("--constraint") + 1]).read_text().split()
        if words[0] == "uninstall":
            for name in words[2:]:
                self.packages.pop(name, None)
            return FakeProcess(0)
        code, added = self.outcomes.pop(0)
        self.packages.update(added)
        return FakeProcess(code)


class FakeProcess:
    read_out = True

    def __init__(self, code):
        self.code = code

    def output(self):
        return [b"Collecting things\n"]

    def errors(self):
        return [] if self.code == 0 else ["ERROR: no matching distribution\n"]

    def kill(self):
        pass


def installation(pip, packages, tmp_path, torch=lambda: None, wheels=None):
    from MambaImagingLib.compute.installing import Installation

    return Installation(pip, torch, lambda: dict(packages), tmp_path, wheels)


def finish(one):
    for _ in range(50):
        ended = one.poll()
        if ended is not None:
            return ended
    raise AssertionError("it does not end")


def test_torch_first_then_everything_is_held_at_its_version(tmp_path):
    packages = dict(SLICERS)
    pip = FakePip(packages, [(0, {"napari-mamba": "0.1.0", "monai": "1.5"})])
    ended = finish(installation(pip, packages, tmp_path, lambda: packages.update({"torch": "2.13.0+cpu"})))
    assert (ended.error, ended.changed) == ("", [])
    assert ended.added == ["monai", "napari-mamba", "torch"]
    (words,) = pip.calls
    assert not list(tmp_path.iterdir())
    assert pip.held == ["numpy==2.0.2", "requests==2.32.3", "scipy==1.13.1", "torch==2.13.0+cpu"]
    assert "napari-mamba @" in words[-1]


def test_a_failure_takes_away_what_was_added(tmp_path):
    packages = dict(SLICERS)
    pip = FakePip(packages, [(1, {"monai": "1.5"})])
    ended = finish(installation(pip, packages, tmp_path, lambda: packages.update({"torch": "2.13.0"})))
    assert "no matching distribution" in ended.error
    assert packages == SLICERS
    assert pip.calls[-1] == ["uninstall", "--yes", "monai", "torch"]


def test_without_the_extension_pytorch_nothing_is_done(tmp_path):
    packages = dict(SLICERS)
    pip = FakePip(packages, [])
    ended = finish(installation(pip, packages, tmp_path, None))
    assert "install the extension PyTorch" in ended.error
    assert not pip.calls

    def broken():
        raise RuntimeError("light-the-torch is broken")

    ended = finish(installation(pip, packages, tmp_path, broken))
    assert "light-the-torch is broken" in ended.error
    assert packages == SLICERS


def test_a_package_that_changed_is_told(tmp_path):
    packages = {**SLICERS, "torch": "2.13.0"}
    pip = FakePip(packages, [(0, {"napari-mamba": "0.1.0", "numpy": "2.4.6"})])
    ended = finish(installation(pip, packages, tmp_path))
    assert ended.changed == ["numpy"]
    assert "numpy" in ended.error


def test_cancelling_takes_away_what_was_added(tmp_path):
    packages = {**SLICERS, "torch": "2.13.0"}
    one = installation(FakePip(packages, [(0, {"monai": "1.5"})]), packages, tmp_path)
    one.stop()
    assert finish(one).error == "cancelled"
    assert packages == {**SLICERS, "torch": "2.13.0"}


def wheel(folder, name, version, requires=""):
    """A wheel with nothing in it but its name."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        made.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize(("wanted", "fails"), [("numpy>=2", False), ("numpy>=2.4", True)])
def test_a_real_pip_from_a_folder_of_wheels(tmp_path, wanted, fails):
    """Stand-ins of a few bytes: a wheel that asks for another numpy than Slicer's is refused, and torch goes again."""
    from MambaImagingLib.compute.installing import Installation
    from MambaImagingLib.compute.processes import Process

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = next(p for p in (tmp_path / "env/bin/python", tmp_path / "env/Scripts/python.exe") if p.exists())
    wheels, slicers = tmp_path / "wheels", tmp_path / "slicers"
    wheels.mkdir()
    slicers.mkdir()
    wheel(slicers, "numpy", "2.0.2")
    wheel(wheels, "numpy", "2.4.6")
    wheel(wheels, "torch", "2.13.0")
    wheel(wheels, "napari-mamba", "0.1.0", wanted)
    pip = [sys.executable, "-m", "pip", "--python", str(python)]  # a pip of its own takes seconds to be installed
    alone = ["--no-index", "--find-links"]
    subprocess.run([*pip, "install", "-q", *alone, str(slicers), "numpy"], check=True, capture_output=True)

    def freeze():
        code = "import importlib.metadata as m; "
        code += "print(*(d.metadata['Name'].lower() + '==' + d.version for d in m.distributions()))"
        told = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout
        return dict(one.split("==") for one in told.split())

    before = freeze()
    one = Installation(lambda words: Process([*pip, *words]), None, freeze, tmp_path, wheels)
    while (ended := one.poll()) is None:
        time.sleep(0.05)
    assert not ended.changed
    assert bool(ended.error) == fails, ended
    assert freeze() == (before if fails else {**before, "torch": "2.13.0", "napari-mamba": "0.1.0"})


# What 3D Slicer brings, by its sources: SuperBuild/External_python-*-requirements.txt of v5.10.0 and v5.12.3.
PINS = {
    "5.10.0": {
        "numpy": "2.0.2", "scipy": "1.13.1", "pillow": "11.2.1", "pydicom": "2.4.4", "simpleitk": "2.5.0",
        "packaging": "25.0", "requests": "2.32.3", "typing-extensions": "4.14.0",
    },
    "5.12.3": {
        "numpy": "2.4.6", "scipy": "1.17.1", "pillow": "12.2.0", "pydicom": "3.0.2", "simpleitk": "2.5.5",
        "packaging": "26.2", "requests": "2.34.2", "typing-extensions": "4.15.0",
    },
}  # fmt: skip


def requirements(repository):
    """Requirements of the package and of what it asks for, as installed here, each with who asks for it.

    No deeper: there pip can choose older versions, as it does with pydantic.
    """
    import importlib.metadata
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        own = Requirement(text)
        yield "napari-mamba", own
        try:
            theirs = map(Requirement, importlib.metadata.requires(own.name) or [])
        except importlib.metadata.PackageNotFoundError:
            continue
        yield from ((own.name, one) for one in theirs if one.marker is None or one.marker.evaluate({"extra": ""}))


@pytest.mark.parametrize("slicer", list(PINS))
def test_no_requirement_excludes_what_slicer_has(repository, slicer):
    """Without a network; check_install.py installs in earnest."""
    pytest.importorskip("packaging")
    if sys.version_info >= (3, 12):
        pytest.skip("pip may have taken newer packages here than Slicer's NumPy lets it take there")
    excluded = []
    for asks, one in requirements(repository):
        has = PINS[slicer].get(one.name.lower().replace("_", "-"))
        if has is not None and not one.specifier.contains(has):
            excluded.append(f"{asks}: {one}")
    assert not excluded
