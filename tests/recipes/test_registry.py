"""The registry knows each recipe's parts, and the parts know nothing of the registry's."""

import inspect
from types import SimpleNamespace

import pytest
from torch import nn

from napari_mamba import recipes
from napari_mamba.recipes.measurement import Measurement, measured_on, png
from napari_mamba.recipes.registry import RECIPES
from napari_mamba.training.recipe import Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_part_is_there_and_takes_what_the_registry_hands_it(name):
    entry = RECIPES[name]
    made = entry.load("recipe")
    assert issubclass(made, Recipe)
    assert made.name == name
    export, evaluate, card = (entry.load(part) for part in ("export", "evaluate", "card"))
    assert list(inspect.signature(export).parameters) == ["recipe", "weights", "destination", "history"]
    assert list(inspect.signature(evaluate).parameters)[:4] == ["recipe", "bundle", "options", "on_case"]
    assert "not for clinical use" in card({}).lower()


def test_an_evaluation_writes_its_metrics_and_figures_only_when_asked(tmp_path, monkeypatch):
    """The numbers go into the bundle beside those that are there, and the card is made of all."""
    from napari_mamba.training.scoring import evaluation

    drawn, written = [], []

    loaded = SimpleNamespace(metrics={"trained": {"steps": 7}, "held_out": {"dice": 0.1}})

    def figures():
        drawn.append(1)
        return {"a.png": png(lambda path: path.write_bytes(b"drawn"))}

    class Entry:
        def load(self, part):
            return {
                "recipe": lambda data, variant: "the recipe",
                "evaluate": lambda made, bundle, options, on_case, parts=(): measured_on(
                    "held_out", {"dice": 0.9, "device": options.device, "parts": parts, "cases": [made]}, figures
                ),
                "card": lambda metrics: f"{metrics['trained']['steps']} steps, {metrics['held_out']['dice']}",
            }[part]

    monkeypatch.setattr("napari_mamba.recipes.registry.RECIPES", {"one": Entry()})
    monkeypatch.setattr("napari_mamba.bundles.load", lambda place: loaded)
    monkeypatch.setattr(evaluation, "write_numbers", lambda *told: written.append(told))
    found = recipes.evaluate("one", tmp_path, device="cpu", parts=("icbm",))
    assert found == {"dice": 0.9, "device": "cpu", "parts": ("icbm",), "cases": ["the recipe"]}
    assert not drawn
    assert not written
    recipes.evaluate("one", tmp_path, device="cpu", write=True)
    ((bundle, metrics, card, pictures),) = written
    assert bundle is loaded
    assert metrics["held_out"] == {"dice": 0.9, "device": "cpu", "parts": ()}
    assert (card, pictures) == ("7 steps, 0.9", {"a.png": b"drawn"})


def test_numbers_without_figures_have_none():
    assert Measurement({}, {}).figures() == {}


def test_a_recipe_needs_no_bundle():
    """Only what training needs is asked of a recipe: one of a user's own has no card."""

    class Own(Recipe):
        name = "own"
        network = lambda self: nn.Identity()  # noqa: E731
        batch = loss = validate = network

    assert Own("data").variant == ""
