"""A beating heart beside its playing images: the volume curve, a marker at the phase that is shown, the numbers."""
