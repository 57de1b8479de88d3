"""Where the extension says that it and napari-mamba are to be found; and another owner, in all places at once.

    python addresses.py            # list the addresses
    python addresses.py OWNER      # write OWNER into all of them

No repository was published when this was written: the owner `napari-mamba` is an assumption until somebody makes
github.com/napari-mamba, or names another owner here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ADDRESS = re.compile(
    r"(?P<host>github\.com[:/]|raw\.githubusercontent\.com/)(?P<owner>[\w.-]+)/(?=(?:SlicerMambaImaging|napari-mamba)\b)"
)
KINDS = (".py", ".md", ".txt", ".json")


def files(folder: Path) -> list[Path]:
    """The files that may hold an address; not this one."""
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in KINDS and "__pycache__" not in path.parts]
    return [path for path in found if path.name != Path(__file__).name]


def owners(folder: Path = HERE) -> dict[str, list[str]]:
    """Owner, and the files in which it stands."""
    found: dict[str, list[str]] = {}
    for path in files(folder):
        for match in ADDRESS.finditer(path.read_text(encoding="utf-8")):
            found.setdefault(match["owner"], []).append(path.relative_to(folder).as_posix())
    return found


def write(owner: str, folder: Path = HERE) -> int:
    """Put an owner into all addresses; returns how many there are."""
    count = 0
    for path in files(folder):
        text = path.read_text(encoding="utf-8")
        new, places = ADDRESS.subn(lambda match: f"{match['host']}{owner}/", text)
        count += places
        if new != text:
            path.write_text(new, encoding="utf-8", newline="\n")
    return count


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    if arguments:
        if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?", arguments[0]):
            print(f"{arguments[0]!r} is no owner on GitHub", file=sys.stderr)
            return 2
        print(f"{write(arguments[0])} addresses")
    for owner, places in owners().items():
        for place in sorted(set(places)):
            print(f"github.com/{owner}", place, places.count(place), sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
