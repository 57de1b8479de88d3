"""`train --list`: which networks and recipes there are to train, and what data each takes."""

from __future__ import annotations

import json

from napari_mamba.cli.listing import show_table


def show_trainable(*, as_json: bool) -> None:
    """Networks for `--network`, then recipes for `--recipe`."""
    from napari_mamba import models
    from napari_mamba.recipes.registry import RECIPES
    from napari_mamba.training.nnunet.data import LAYOUTS
    from napari_mamba.training.nnunet.networks import BASELINES, MIXERS, TRAINABLE, trainer_name

    networks = [
        {
            "network": name, "title": models.info(name).title, "dimensions": list(known.dims),
            "trainer": trainer_name(name), "paper": models.info(name).paper,
        }
        for name, known in TRAINABLE.items()
    ]  # fmt: skip
    recipes = [{"recipe": name, "task": entry.task, "data": entry.takes} for name, entry in RECIPES.items()]
    if as_json:
        told = {"networks": networks, "baselines": BASELINES, "mixers": MIXERS, "layouts": LAYOUTS, "recipes": recipes}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print("Networks for images and label maps of your own: napari-mamba train DATASET --network NAME -o BUNDLE")
    print(f"DATASET is {LAYOUTS}.\n")
    rows = [[str(one["network"]), str(one["title"]), _dims(known.dims), str(one["paper"])]
            for one, known in zip(networks, TRAINABLE.values(), strict=True)]  # fmt: skip
    rows += [[name, what, "2D, 3D", ""] for name, what in BASELINES.items()]
    show_table(["network", "title", "takes", "paper"], rows)
    print(f"\nMixers for --mixer: {', '.join(MIXERS)}.\n")
    print("Recipes of the shipped bundles: napari-mamba train --recipe NAME --data DIR")
    show_table(["recipe", "task", "DIR"], [[one["recipe"], one["task"], one["data"]] for one in recipes])


def show_trainers() -> None:
    """The folder for nnU-Net's own variable `nnUNet_extTrainer`."""
    from napari_mamba.training.nnunet.child.process import TRAINERS

    print(TRAINERS)


def _dims(dims: tuple[int, ...]) -> str:
    return ", ".join(f"{one}D" for one in dims)
