"""A bundle's networks on a device: loaded, rehearsed before their first pass, and kept for the next run."""
