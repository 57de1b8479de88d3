"""The scan on NVIDIA GPUs: CUDA C++ sources (`kernels/`), compiled by NVRTC at first use, and their callers.

How the parts fit:

- `runtime.py` compiles, caches, loads and launches; every kernel takes one struct, described by a `struct` layout.
- `repeat.py` makes a call like one before short: no checks, no plan, two allocations and the launches;
  `repeat_gradients.py` does so where gradients are asked for.
- `forward.py` runs the forward scan, `backward.py` its gradients (what is launched: `backward_layout.py`), `conv.py`
  the causal convolution and its gradients.
- `napari_mamba.scan.cuda_backend` is the backend module: argument checks, autograd.

What the forward keeps for the backward: `chunk_starts`, float32, contiguous, (B, K, chunks, N, D): the state before the
first step of each chunk of `chunk_length` steps of path k (chunk 0: zeros), chunks = ceil(L / chunk_length). Step t of
path k is row `table[k, t]`; on the device the table is int32, contiguous (K, L): see `forward.device_table`.

`backward.selective_scan_backward(args, chunk_starts, chunk_length, grad_output)` takes the ScanArguments the forward
had and grad_output, (B, L, D) for merge "sum" or (B, K, L, D) for "none", of any floating type; it returns a dict with
the keys "u", "delta", "A", "B", "C", "D", "z", "delta_bias" (None for an absent argument), each of the shape of its
argument. Where z is there, the backward recomputes the ungated output it needs from the chunk starts.

Every tensor has its last axis contiguous (strides of the other axes are free, no copies of slices), and u, delta, B, C
and z have one type: `forward.prepare(args)` sees to both. A, D, delta_bias are float32.
"""
