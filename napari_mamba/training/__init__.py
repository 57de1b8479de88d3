"""The recipes that made the shipped bundles: train them again, go on with them, measure them.

>>> from napari_mamba import training
>>> sorted(training.RECIPES)
['adrenal-shape', 'brain-structures-mr', 'hippocampus-mr', 'mr-denoise', 'mr-quality', 'mr-superres']
"""

from napari_mamba.recipes.registry import RECIPES, evaluate, recipe, train
from napari_mamba.training.recipe import Recipe, Schedule

__all__ = ["RECIPES", "Recipe", "Schedule", "evaluate", "recipe", "train"]
