"""The scan and the causal convolution on the CPU, compiled by Numba."""
