"""The extension's folder is held to the Extensions Index's rules (its scripts/check_description_files.py, as read)."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

EXTENSION = Path(__file__).resolve().parents[2] / "slicer_extension"
MODULE = EXTENSION / "MambaImaging"
ENTRY = EXTENSION / "MambaImaging.json"
ALLOWED_KEYS = {
    *("$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "build_subdirectory"),
    *("enabled", "tier"),
}
LIBRARY = sorted(MODULE.rglob("*.py"))
# What Slicer ships and the module may import inside a function; at file scope only the standard library and itself.
SHIPPED = {"slicer", "vtk", "qt", "ctk", "numpy", "requests", "SampleData", "PyTorchUtils"}


def test_the_entry_is_what_the_schema_allows():
    entry = json.loads(ENTRY.read_text(encoding="utf-8"))
    assert set(entry) <= ALLOWED_KEYS
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert entry["category"] == "Segmentation"
    assert 1 <= entry["tier"] <= 5
    repository = entry["scm_url"].rsplit("/", 1)[1].removesuffix(".git")
    assert repository.startswith("Slicer")
    assert entry["scm_url"].startswith("https://")
    assert not ENTRY.stem.lower().startswith("slicer")


def test_cmake_says_what_the_index_reads():
    text = (EXTENSION / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.findall(r"project\s*\(\s*([^\s\)]+)", text) == [ENTRY.stem]
    (icon,) = re.findall(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', text)
    (screens,) = re.findall(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', text)
    for address in [icon, *screens.split()]:
        place = address.split("/main/", 1)[1]
        assert (EXTENSION / place).read_bytes()[:4] == b"\x89PNG", place
    (depends,) = re.findall(r'set\s*\(EXTENSION_DEPENDS\s*"([^"]+)"\)', text)
    assert depends.split() == json.loads(ENTRY.read_text())["build_dependencies"]


def test_every_file_is_in_the_modules_list():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "MambaImaging")
    listed = {line.strip() for line in text.splitlines() if line.strip().endswith((".py", ".png", ".ui"))}
    there = {
        path.relative_to(MODULE).as_posix()
        for path in MODULE.rglob("*")
        if path.suffix in (".py", ".png", ".ui") and "__pycache__" not in path.parts
    }
    assert listed - {"slicer_add_python_unittest(SCRIPT MambaImaging.py)"} == there


def test_it_is_complete_by_itself_and_small():
    for name in ("LICENSE", "README.md", "CMakeLists.txt", "MambaImaging.png"):
        assert (EXTENSION / name).is_file()
    assert (EXTENSION / "LICENSE").read_text() == (EXTENSION.parent / "LICENSE").read_text()
    files = [path for path in EXTENSION.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 3e6
    for path in files:
        if path.suffix in (".py", ".txt", ".md", ".json", ".ui"):
            assert b"\r" not in path.read_bytes(), path
    readme = (EXTENSION / "README.md").read_text(encoding="utf-8")
    for heading in ("Tutorial", "What was not run in Slicer", "How to cite", "How this folder is published"):
        assert f"## {heading}" in readme
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (EXTENSION / link).exists(), link


def test_rooms_have_about_a_dozen_files_and_imports_go_one_way():
    """nodes and panel <- the files above them; compute knows no nodes, and nothing but the panel knows the panel."""
    library = MODULE / "MambaImagingLib"
    for folder in {path.parent for path in LIBRARY}:
        assert len(list(folder.glob("*.py"))) <= 14, folder
    for path in library.rglob("*.py"):
        room = path.parent.name
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"\s*from \.+(compute|nodes|panel)\b", line):
                assert room != "compute", f"{path.name}: {line}"
                assert found.group(1) != "panel", f"{path.name}: {line}"


def test_all_addresses_have_one_owner_and_a_script_sets_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSION))
    import addresses

    ((_, places),) = addresses.owners().items()
    assert {"CMakeLists.txt", "MambaImaging.json", "README.md", "MambaImaging/MambaImaging.py"} <= set(places)
    assert "MambaImaging/MambaImagingLib/compute/installing.py" in places
    copy = tmp_path / "extension"
    shutil.copytree(EXTENSION, copy)
    assert addresses.write("someone-else", copy) == len(places)
    assert list(addresses.owners(copy)) == ["someone-else"]
    entry = json.loads((copy / "MambaImaging.json").read_text())
    assert entry["scm_url"] == "https://github.com/someone-else/SlicerMambaImaging.git"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_nothing_of_others_is_imported_at_file_scope_and_torch_never(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = {*sys.stdlib_module_names, "MambaImagingLib"} | ({"slicer"} if path.name == "MambaImaging.py" else set())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        for name in names:
            top = name.split(".")[0]
            assert top not in ("torch", "napari_mamba", "PIL", "scipy", "SimpleITK"), f"{path.name} imports {name}"
            assert top in allowed or (node not in tree.body and top in SHIPPED | allowed), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.name)
def test_files_are_small_and_of_pythons_that_slicer_has(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 500
    ast.parse(text, feature_version=(3, 12))


def test_the_panel_of_the_ui_file_has_what_the_code_asks_for():
    text = (MODULE / "Resources" / "UI" / "MambaImaging.ui").read_text(encoding="utf-8")
    named = set(re.findall(r'<widget class="\w+" name="(\w+)"', text))
    code = "".join(path.read_text(encoding="utf-8") for path in (MODULE / "MambaImagingLib" / "panel").glob("*.py"))
    asked = set(re.findall(r"\bui\.(\w+)\b", code)) - {"write"}
    assert asked <= named
    for word in ("bundle", "mode", "place", "device", "precision"):
        assert word + "Combo" in named
    for word in ("table", "plot", "surfaces", "probabilities", "uncertainty", "residual", "mirror"):
        assert word + "Check" in named
