"""The engine in its own process: both ends of the pipes, and what is measured there. No Qt, no napari."""
