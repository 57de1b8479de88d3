"""What `train`, `adapt`, `evaluate` and `join` do: recipes of the shipped bundles, and networks on data of one's own."""
