"""A model over the frames of a film: labels over time beside it."""
