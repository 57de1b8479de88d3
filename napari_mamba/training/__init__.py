"""The recipes that made the shipped bundles: train them again, go on with them, measure them.

>>> from napari_mamba import training
>>> sorted(training.RECIPES)
['adrenal-shape', 'brain-structures-mr', 'hippocampus-mr', 'mr-denoise', 'mr-quality', 'mr-superres']
"""

from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.registry import RECIPES, evaluate, recipe, train

__all__ = ["RECIPES", "Recipe", "Schedule", "evaluate", "recipe", "train"]
