"""Films and series of volumes: read frame by frame, and results over time written with the source's time axis."""
