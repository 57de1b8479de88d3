"""The same bytes again: on any number of CPU threads, and on a GPU where that is asked for."""
