"""Recipes: what each shipped bundle is trained on, with which network and loss, and how it is measured."""
