"""What made the shipped bundles: train them again, go on with them, measure them.

A room holds one recipe. In this order its files import from those before them: `task.py` (constants, classes, network),
`data.py`, `recipe.py` (samples, loss, schedule), `card.py`, `bundle.py` (`spec`, `export`) and `evaluation.py`
(`evaluate`). The `Entry` in `registry.py` says where its parts are; `measurement.py` is what evaluations share.

>>> from napari_mamba import recipes
>>> sorted(recipes.RECIPES)  # doctest: +ELLIPSIS
['adrenal-shape', 'brain-register-mr', 'brain-structures-mr', 'dose-headneck-ct', 'heart-mr', ...]
"""

from napari_mamba.recipes.registry import RECIPES, evaluate, recipe, train

__all__ = ["RECIPES", "evaluate", "recipe", "train"]
