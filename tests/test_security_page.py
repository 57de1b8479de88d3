"""SECURITY.md and docs/reliability.md name tests that exist."""

from __future__ import annotations

import ast
import json
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


def test_what_was_found_names_tests_that_exist(repository: Path):
    found = json.loads((repository / "docs" / "scripts" / "reliability_found.json").read_text(encoding="utf-8"))
    page = (repository / "docs" / "reliability.md").read_text(encoding="utf-8")
    for one in found:
        path, _, name = one["test"].partition("::")
        tree = ast.parse((repository / path).read_text(encoding="utf-8"))
        names = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        assert not name or name in names, one["test"]
        assert one["found"] in page, "run docs/scripts/make_reliability.py"
