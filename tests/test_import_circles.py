"""No circle of files: every import counts, at the top of a file, inside a function, or for types alone."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def module_of(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports; of `from package import name` the module `name`, if it is one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are written with the package's name"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in modules else node.module for name in names if node.module in modules)


def circle(root: Path, package: str) -> list[str]:
    """Modules of a package of which each imports the next and the last one the first; none if there is no circle."""
    modules = {module_of(file, root): file for file in (root / package).rglob("*.py")}
    assert len(modules) > 1
    graph = {name: set(imported(file, modules)) for name, file in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize("package", ["napari_mamba", "benchmarks"])
def test_no_files_import_each_other_in_a_circle(package):
    found = circle(ROOT, package)
    assert not found, f"a circle of imports: {' -> '.join(found)}"


@pytest.mark.parametrize("way", ["from room import b", "def late():\n    from room.b import x", "import room.b"])
def test_a_circle_is_found(tmp_path, way):
    (tmp_path / "room").mkdir()
    (tmp_path / "room/__init__.py").write_text("")
    (tmp_path / "room/a.py").write_text(way + "\n")
    (tmp_path / "room/b.py").write_text("from room.c import y\n")
    (tmp_path / "room/c.py").write_text("")
    assert circle(tmp_path, "room") == []
    (tmp_path / "room/c.py").write_text("from room import a\n")
    assert set(circle(tmp_path, "room")) == {"room.a", "room.b", "room.c"}
