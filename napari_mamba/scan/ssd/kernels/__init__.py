"""The kernels of Mamba-2's scan, in Triton; importing one of these modules needs Triton."""
