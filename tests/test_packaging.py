"""What is installed: light imports, small dependencies, a valid manifest, whole bundles, and a README that holds."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version

import pytest

from napari_mamba import bundles

HEAVY = ("torch", "numpy", "scipy", "monai", "numba", "SimpleITK", "zarr", "napari", "qtpy", "PySide6", "rich")


def loaded_by(statement: str) -> list[str]:
    """Heavy packages that a fresh Python has loaded after a statement."""
    code = f"{statement}\nimport sys\nsys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr.split()


def cpu_seconds(code: str) -> float:
    """Processor time of a fresh Python: wall time would measure what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import napari_mamba") == []
    assert loaded_by("import napari_mamba; napari_mamba.Volume") == ["numpy"]
    assert cpu_seconds("import napari_mamba") < 0.3


def test_help_is_quick():
    statement = "from napari_mamba.cli import main; main(['--help'])"
    assert set(loaded_by(statement)) <= {"rich"}
    assert min(cpu_seconds(statement) for _ in range(2)) < 1


def test_a_list_of_bundles_needs_no_torch():
    assert "torch" not in loaded_by("from napari_mamba.cli import main; main(['models'])")


def test_base_dependencies_hold_no_gui():
    base = [line for line in requires("napari-mamba") if "extra ==" not in line]
    names = {re.match(r"[A-Za-z0-9_.-]+", line).group().lower() for line in base}
    assert {"torch", "numpy", "simpleitk"} <= names
    assert not names & {"napari", "magicgui", "superqt", "qtpy", "pyqt5", "pyqt6", "pyside6", "vispy"}


def test_the_lock_holds_what_is_asked_for(repository):
    """`uv pip compile pyproject.toml --extra test --extra dev --python-version 3.11 -o .ci/lock.txt` writes it."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (repository / ".ci/lock.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    locked = {canonicalize_name(one.name): next(iter(one.specifier)).version for one in pinned}
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    waiting, asked = ["test", "dev"], [Requirement(line) for line in project["dependencies"]]
    while waiting:
        for one in map(Requirement, extras[waiting.pop()]):
            if one.name == "napari-mamba":
                waiting += one.extras
            elif one.marker is None or one.marker.evaluate({"sys_platform": "linux"}):
                asked.append(one)
    names = [(canonicalize_name(one.name), one) for one in asked]
    wrong = [str(one) for name, one in names if name not in locked or locked[name] not in one.specifier]
    assert not wrong, "not in .ci/lock.txt, or not as it is there"


def test_one_version_everywhere(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    citation = re.search(r"^version: (\S+)", (repository / "CITATION.cff").read_text(), re.M).group(1)
    changes = re.search(r"^## (\d\S*)", (repository / "CHANGELOG.md").read_text(), re.M).group(1)
    assert project["version"] == version("napari-mamba") == citation == changes


def test_the_manifest_is_valid_and_its_commands_exist(repository):
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(repository / "napari_mamba/napari.yaml")
    assert manifest.name == "napari-mamba"
    manifest.validate_imports()


def test_shipped_bundles_are_whole_and_small():
    found = {bundle.name: bundle for bundle in bundles.available() if bundles.bundle.SHIPPED in bundle.path.parents}
    assert "hippocampus-mr" in found
    for name in found:
        bundle = bundles.load(name)
        (network, *_) = bundle.networks()
        assert sum(parameter.numel() for parameter in network.parameters()) <= 7.5e6  # 15 MB in float16
        assert sum(path.stat().st_size for path in bundle.weights) <= 15e6
        assert bundle.licence
        assert bundle.metrics
        assert f"napari-mamba evaluate {name}" in bundle.card
        assert "clinical" in bundle.card


def test_the_package_is_small_and_holds_no_pickle(repository):
    weights = (repository / "napari_mamba").rglob("weights*.safetensors")
    assert sum(path.stat().st_size for path in weights) <= 87e6
    files = [p for p in (repository / "napari_mamba").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(path.stat().st_size for path in files) < 95e6  # unpacked; the wheel is smaller
    assert not [path for path in files if path.suffix in (".pth", ".pt", ".pkl", ".ckpt", ".npy", ".npz")]


def commands_of(readme: str) -> list[str]:
    """Lines of the README's blocks of shell commands, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.S)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_links_of_the_readme_lead_somewhere(repository):
    for page in (
        "README.md",
        "docs/index.md",
        "CONTRIBUTING.md",
        "sample_data/README.md",
        "slicer_extension/README.md",
    ):
        text = (repository / page).read_text()
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", text):
            assert ((repository / page).parent / target).exists(), f"{page}: {target}"


def test_the_first_command_of_the_readme_does_what_it_says(repository, tmp_path, monkeypatch, capsys):
    from napari_mamba.cli import main

    (tmp_path / "sample_data").symlink_to(repository / "sample_data")
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in commands_of((repository / "README.md").read_text()) if "napari-mamba run" in line][:1]
    arguments = line.split("napari-mamba run ")[1].split()
    assert main(["run", *arguments]) == 0, capsys.readouterr().err
    written = {path.suffix for path in tmp_path.iterdir() if path.is_file()}
    assert written == {".gz", ".csv", ".png"}
    assert "anterior" in capsys.readouterr().out


def test_continuous_integration_runs_the_second_command_of_the_readme(repository):
    lines = commands_of((repository / "README.md").read_text())
    command = next(line for line in lines if "[test]" in line).split(" && ", 2)[-1]
    script = (repository / ".ci/run").read_text()
    assert command in script.splitlines()
