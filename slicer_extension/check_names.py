"""Are the names of Slicer, Qt and CTK that the extension uses there in each supported Slicer?

    python check_names.py SLICER_REPOSITORY [CTK_REPOSITORY] > names.txt

SLICER_REPOSITORY is a clone of github.com/Slicer/Slicer with its tags. Looked at are the attributes that the module and
its library take from objects of Slicer, VTK and Qt: every name is searched in the declarations of the sources, so this
tells that a name exists, not that it is used rightly. Output: one line a name, with the number of files in which each
version declares it; the exit code is 1 if a name is in none.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

VERSIONS = ("v5.10.0", "v5.12.3")
FILES = ("*.h", "*.txx", "Base/Python/slicer/*.py", "Modules/Scripted/SampleData/*.py", "Base/QTGUI/*.cxx")
# C++ libraries outside of Slicer's repository: VTK and Qt. Each is in VTK 9.2 and in Qt 5.15 and 6, by their manuals.
FROM_VTK_AND_QT = frozenset(
    [
        "AddColumn",
        "AddObserver",
        "DeepCopy",
        "GetBounds",
        "GetCenter",
        "GetDimensions",
        "GetElement",
        "GetExtent",
        "GetNumberOfPoints",
        "GetPointData",
        "GetScalars",
        "GetNumberOfScalarComponents",
        "InsertNextPoint",
        "InsertNextValue",
        "RemoveObserver",
        "SetData",
        "SetLines",
        "SetName",
        "SetScalars",
        "ShallowCopy",
        "TransformPoint",
        "IsA",
        "GetName",
        "addItem",
        "addRow",
        "addWidget",
        "clear",
        "checked",
        "click",
        "connect",
        "currentIndex",
        "currentText",
        "findText",
        "getOpenFileName",
        "layout",
        "removeRow",
        "setChecked",
        "setCurrentIndex",
        "setEnabled",
        "setInterval",
        "setMarkdown",
        "setPlainText",
        "setText",
        "setToolTip",
        "setValue",
        "setVisible",
        "start",
        "stop",
        "text",
        "value",
        "currentPath",
        "setCurrentPath",
    ]
)
# The standard library, requests and NumPy; and the extension PyTorch, read at github.com/fepegar/SlicerPyTorch.
FROM_PYTHON = frozenset(
    [
        "CREATE_NEW_PROCESS_GROUP",
        "CREATE_NO_WINDOW",
        "DEVNULL",
        "PIPE",
        "Popen",
        "ExitStack",
        "RequestException",
        "SIGKILL",
        "SIGTERM",
        "SSLError",
        "SimpleQueue",
        "Thread",
        "TimeoutExpired",
        "Session",
        "Empty",
        "Event",
        "deg2rad",
        "float32",
        "uint8",
        "PyTorchUtilsLogic",
        "installTorch",
    ]
)
PLAIN = re.compile(r"^_|^[a-z_0-9]+$|^[A-Z_]+$")


def used(folder: Path) -> dict[str, set[str]]:
    """Names that look like Slicer's (CamelCase, or vtk..., qMRML...), and the files that use them."""
    found: dict[str, set[str]] = {}
    ours = defined(folder)
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Attribute):
                names.append(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if re.fullmatch(r"(vtkMRML|qMRML|ctk)\w+", node.value):
                    names.append(node.value)
                elif signal := re.fullmatch(r"(\w+)\([\w:*, ]*\)", node.value):
                    names.append(signal.group(1))
            for name in names:
                if (not PLAIN.match(name) or name in SLICER_LOWER) and name not in FROM_PYTHON | ours:
                    found.setdefault(name, set()).add(path.name)
    for path in sorted(folder.rglob("*.ui")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"<class>((?:qMRML|ctk)\w+)</class>", text):
            found.setdefault(name, set()).add(path.name)
    return found


def defined(folder: Path) -> set[str]:
    """Names that the extension itself defines: classes, and widgets of the .ui file."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        found |= {
            node.name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ClassDef)
        }
    for path in folder.rglob("*.ui"):
        found |= set(re.findall(r'<widget class="\w+" name="(\w+)"', path.read_text(encoding="utf-8")))
    return found


SLICER_LOWER = frozenset(
    [
        "startupCompleted",
        "aboutToQuit",
        "userSettings",
        "slicerHome",
        "temporaryPath",
        "processEvents",
        "commandOptions",
        "noMainWindow",
        "loadUI",
        "childWidgetVariables",
        "confirmOkCancelDisplay",
        "errorDisplay",
        "mainWindow",
        "startupEnvironment",
        "resourcePath",
        "nodeTypes",
        "noneEnabled",
        "addEnabled",
        "removeEnabled",
        "currentNode",
        "setCurrentNode",
        "setMRMLScene",
        "checkedNodes",
        "delayDisplay",
        "addVolumeFromArray",
        "arrayFromVolume",
    ]
)


def declared(repository: str, version: str, name: str) -> int:
    """In how many files of a version a name is declared, as a word."""
    answer = subprocess.run(
        ["git", "--git-dir", repository, "grep", "-lwE", _pattern(name), version, "--", *FILES],
        capture_output=True,
        text=True,
        check=False,
    )
    return len(answer.stdout.splitlines())


def _pattern(name: str) -> str:
    """A setter or getter may be made by a macro: vtkSetMacro(Name, ...), vtkGetObjectMacro(Name, ...)."""
    bare = re.sub(r"^(Set|Get)(?=[A-Z])|O[nf]f?$", "", name)
    return name if bare == name else f"{name}|vtk[A-Za-z0-9]*Macro\\({bare}"


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    repository = arguments[0]
    missing = 0
    print("# name", *VERSIONS, "used in", sep="\t")
    for name, files in sorted(used(Path(__file__).parent / "MambaImaging").items()):
        if name in FROM_VTK_AND_QT:
            print(name, *["VTK/Qt"] * len(VERSIONS), ", ".join(sorted(files)), sep="\t")
            continue
        counts = [declared(repository, version, name) for version in VERSIONS]
        missing += not all(counts)
        print(name, *counts, ", ".join(sorted(files)) + ("" if all(counts) else "  MISSING"), sep="\t")
    print(f"# {missing} missing")
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
