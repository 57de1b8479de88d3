"""What made the shipped bundles: train them again, go on with them, measure them.

A room holds one recipe, each file above the next importing from those before it: `task.py` (constants, classes,
network), `data.py`, `recipe.py` (samples, loss, schedule), `card.py`, `bundle.py` (`spec`, `export`), `evaluation.py`
(`evaluate`). Its `Entry` in `registry.py` says where they are; `measurement.py` is what evaluations share.

>>> from napari_mamba import recipes
>>> sorted(recipes.RECIPES)
['adrenal-shape', 'brain-structures-mr', 'hippocampus-mr', 'mr-denoise', 'mr-quality', 'mr-superres']
"""

from napari_mamba.recipes.registry import RECIPES, evaluate, recipe, train

__all__ = ["RECIPES", "evaluate", "recipe", "train"]
