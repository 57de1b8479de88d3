"""Mamba-2's scan (state-space duality, SSD): in plain PyTorch, as a recurrence, and in Triton kernels for GPUs."""
