"""Cases of `run` that are no single image: slides, and films."""
