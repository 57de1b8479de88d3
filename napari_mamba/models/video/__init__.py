"""Networks that take the frames of a video."""
