"""What made the shipped bundles: train them again, go on with them, measure them.

>>> from napari_mamba import recipes
>>> sorted(recipes.RECIPES)
['adrenal-shape', 'brain-structures-mr', 'hippocampus-mr', 'mr-denoise', 'mr-quality', 'mr-superres']
"""

from napari_mamba.recipes.registry import RECIPES, evaluate, recipe, train

__all__ = ["RECIPES", "evaluate", "recipe", "train"]
