"""The documentation: every link leads somewhere, every page is in the site's contents, and commands exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?((?!https?:|mailto:|data:)[^)>\s]+)>?[^)]*\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.S | re.M)
ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "sample_data/*.md", "slicer_extension/*.md", "napari_mamba/**/README.md")
    for path in ROOT.glob(pattern)
)


def prose(page: Path) -> str:
    """A page without its blocks and pieces of code."""
    return re.sub(r"`[^`\n]*`", "code", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """What a link may name after "#": headings as GitHub and MyST write them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", page.read_text(encoding="utf-8")), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{link} leads nowhere"
        assert place == ROOT or ROOT in place.parents, f"{link} leads out of the repository"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{link}: there is no such heading"


def test_the_link_check_can_fail(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b` and c!\n[x](there.md) [y](#a-b-and-c) `[z](code)`\n```\n[in](code)\n```\n")
    assert LINK.findall(prose(page)) == ["there.md", "#a-b-and-c"]
    assert anchors(page) == {"a-b-and-c"}


@pytest.fixture
def navigation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import navigation

    yield navigation
    sys.modules.pop("navigation", None)


def test_every_page_is_in_the_contents_once(navigation):
    listed = [page for pages in navigation.contents().values() for page in pages]
    assert len(listed) == len(set(listed))
    wanted = {str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.glob("docs/**/*.md")} - {"docs/index"}
    assert wanted <= set(listed)


def test_the_front_page_gets_the_contents_and_no_other_does(navigation):
    front, other = ["# Front"], ["# Other"]
    navigation.add_contents(None, "docs/index", front)
    navigation.add_contents(None, "docs/terms", other)
    assert "\n/docs/tutorial\n" in front[0]
    assert front[0].count("{toctree}") == len(navigation.contents())
    assert other == ["# Other"]


def commands_in(page: Path) -> list[str]:
    """The word after `napari-mamba` in a page's code."""
    text = page.read_text(encoding="utf-8")
    fenced = "\n".join(block.group() for block in FENCE.finditer(text))
    return re.findall(r"(?:^    |`)napari-mamba ([a-z]+)\b", text, re.M) + re.findall(
        r"napari-mamba ([a-z]+)\b", fenced
    )


def test_commands_in_pages_exist():
    from typer.main import get_command

    from napari_mamba.cli.app import app

    known = set(get_command(app).commands)
    for page in PAGES:
        assert set(commands_in(page)) <= known, page


def test_scripts_in_pages_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for module in re.findall(r"python -m ((?:benchmarks|docs)\.[\w.]+)", text):
            place = ROOT / module.replace(".", "/").rstrip("/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), f"{page}: {module}"
        for script in re.findall(r"python ((?:benchmarks|docs|tests|slicer_extension)/[\w/]+\.py)", text):
            assert (ROOT / script).exists(), f"{page}: {script}"
