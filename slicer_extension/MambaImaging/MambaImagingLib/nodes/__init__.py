"""Between nodes of the scene and files: volumes out, results in."""
