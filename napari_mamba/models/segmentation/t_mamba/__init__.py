"""T-Mamba, for volumes and for images."""
