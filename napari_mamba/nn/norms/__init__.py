"""Normalisations, some of them fused into one kernel on NVIDIA GPUs."""
