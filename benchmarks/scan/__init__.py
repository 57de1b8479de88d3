"""The scan and the convolution before it, on the CPU and the GPU, beside other kernels."""
