"""Shipped bundles end to end, what their cards tell beside it, and the training of their recipes."""
