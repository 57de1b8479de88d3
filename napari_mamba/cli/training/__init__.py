"""What `train`, `adapt`, `evaluate` and `join` do: recipes of shipped bundles, and networks on data of one's own."""
