"""The notebook of the docs runs, and the page names every map."""

from pathlib import Path

import pytest

LESS = {
    'found = explain.explain(subject, ["relevance"]': (
        'small = explain.subject_of(volume, bundles.load("hippocampus-mr"), RunOptions(tile=(24, 32, 24)))\n'
        'found = explain.explain(small, ["relevance"]'
    ),
    "steps=3": "steps=1",
}
DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_notebook_runs():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(DOCS / "look_inside.ipynb", as_version=4)
    for cell in notebook.cells:  # the same steps on less
        for whole, less in LESS.items():
            cell.source = cell.source.replace(whole, less)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(DOCS.parent)}})
    client.execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )
    assert "encoder.mamba_layers.1.mamba" in printed
    assert "area under the deletion curve" in printed
    assert "tiles: {'answer'" in printed
    assert "scans were cut" in printed


def test_the_page_has_a_row_for_every_map():
    from napari_mamba.ui.look_inside.parts.titles import TITLES

    page = (DOCS / "look_inside.md").read_text(encoding="utf-8").lower()
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    for title in TITLES.values():
        assert any(title.lower() in row for row in rows), title
