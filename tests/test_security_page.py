"""SECURITY.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path


def test_every_test_that_the_page_names_exists(repository: Path):
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    named = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)))
    assert len(named) >= 10
    for path, name in named:
        tree = ast.parse((repository / path).read_text(encoding="utf-8"))
        found = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        assert name in found, f"{path} has no {name}"


def test_every_file_that_the_page_links_exists(repository: Path):
    text = (repository / "SECURITY.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (repository / link).exists(), link
