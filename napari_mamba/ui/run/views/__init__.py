"""The parts of the dock: each draws a model and hands clicks to it."""
