"""A bundle over the frames of a film, or the volumes of a series: one by one, or a window of them at once."""
