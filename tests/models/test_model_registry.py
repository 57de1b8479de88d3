"""A network by its name, without importing all others."""

from __future__ import annotations

import json

import pytest

from napari_mamba import models
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.errors import InputError
from napari_mamba.models import registry

SHIPPED_NETWORKS = sorted({json.loads(file.read_text())["network"]["name"] for file in SHIPPED.glob("*/bundle.json")})


@pytest.mark.parametrize("name", SHIPPED_NETWORKS)
def test_shipped_networks_are_found_in_the_file_of_their_name(name, monkeypatch):
    models.list_models()
    found = models.info(name)
    imported = []
    monkeypatch.setattr(registry, "_REGISTRY", {})
    monkeypatch.setattr(registry, "_load_all", lambda: imported.append("all"))

    def enter(module: str) -> None:
        imported.append(module)
        registry._REGISTRY |= {found.name: found} if found.build.__module__ == module else {}

    monkeypatch.setattr(registry.importlib, "import_module", enter)
    assert models.info(name) is found
    assert "all" not in imported
    assert len(imported) < 5


def test_a_network_in_a_file_of_another_name_is_found_all_the_same():
    assert models.info("t_mamba_3d").build.__module__.endswith("t_mamba.volumes")
    with pytest.raises(InputError, match="known are"):
        models.info("no_such_network")


def test_networks_with_selective_scans_are_known_and_others_are_not():
    assert models.scans("umamba_enc")
    assert not models.scans("no_such_network")
    assert {model.name for model in models.list_models() if models.scans(model.name)} == {
        model.name for model in models.list_models() if model.scan_order
    }
