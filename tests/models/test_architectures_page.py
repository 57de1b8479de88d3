"""The page of the networks says what the registry and the vectors say."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import parity_vectors
import pytest

from napari_mamba import models
from napari_mamba.models.measured import measured

REMEDY = "run python docs/scripts/make_architectures.py"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location(
        "make_architectures", parity_vectors.REPOSITORY / "docs/scripts/make_architectures.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_every_network_and_every_vector(maker):
    lines = maker.PAGE.read_text(encoding="utf-8").splitlines()
    for model in models.list_models():
        row = next((line for line in lines if line.startswith(f"| `{model.name}` | {model.title} |")), "")
        for fact in (model.task, model.scan_order, model.paper, model.repository, model.licence):
            assert fact in row, f"{model.name} is not on the page with {fact!r}: {REMEDY}"
        for vector in model.vectors:
            assert any(line.startswith(f"| `{model.name}` | `{vector}` |") for line in lines), f"{vector}: {REMEDY}"


def test_the_page_is_what_the_script_writes(maker):
    assert maker.PAGE.read_text(encoding="utf-8") == maker.page(maker.load()), REMEDY


@pytest.mark.parametrize(("network", "name"), parity_vectors.registered())
def test_parameters_and_inputs_are_the_vectors(network, name):
    vector, one = parity_vectors.load(name), measured()[name]
    assert (one.parameters, one.input) == (vector.params, tuple(vector.spec["input"])), f"{network}: {REMEDY}"
