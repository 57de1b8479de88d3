"""The tutorial (docs/tutorial.md), followed as it is written, with a picture of each step."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ui import driving
from docs.pictures.person import Person

SAMPLES = ("File", "Open Sample", "Mamba medical imaging")
PLUGIN = ("Plugins", "Mamba medical imaging")


def hippocampus(folder: Path) -> None:
    """Steps 1 to 5: open, run, read, correct, save; and the film of them."""
    person = Person(folder)
    person.filming = True
    person.film(800)
    person.menu(*SAMPLES, "Left hippocampus, T1 (ICBM 2009a)", shown="1_sample")
    person.menu("Layers", "Segment", "Segment structures", shown="2_menu")
    dock = person.dock()
    person.choose(dock.model.combo, "hippocampus-mr")
    driving.settle(2)
    person.film(1500)
    person.picture("2_dock")
    person.run()
    person.picture("3_result")
    person.filming = False

    person.click("Results…")
    panel = _panel(person)
    view = panel.classes
    table = next(one for one in vars(view).values() if hasattr(one, "currentIndex") and one.isVisible())
    print("class list:", table, flush=True)
    driving.settle(1)
    person.picture("4_classes")
    person.click("Keep largest piece", panel)
    driving.settle(1)
    person.picture("4_corrected")
    person.leave()
    person.save_film(folder.parent / "run.gif")


def sure(folder: Path) -> None:
    """Step 6: how sure the model is."""
    person = Person(folder)
    person.viewer.open_sample("napari-mamba", "hippocampus_left")
    person.menu("Layers", "Visualize", "How sure a model is")
    person.dock()
    driving.settle(1)
    person.picture("5_options")
    person.run()
    person.click("Results…")
    person.tab("Maps")
    person.click("Next uncertain place")
    driving.settle(2)
    person.picture("5_uncertain")
    person.leave()


def _panel(person: Person):
    from napari_mamba.ui.results.panel import ResultsPanel

    return next(one for one in person.viewer.window.dock_widgets.values() if isinstance(one, ResultsPanel))
