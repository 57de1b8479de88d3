"""What a scanner does to a volume, in batches, on any device: noise made in k-space, and slices of any profile."""
