#!/usr/bin/env bash
# Build VMamba's selective scan for sm_90 as SITE/vmamba_scan.so, from a clone of github.com/MzeroMiko/VMamba, with its
# setup.py's flags. It needs nvcc and PyTorch's headers (any build's), no GPU; the two headers that only a CUDA build of
# PyTorch has are replaced by what the kernels use of them. About a minute.
# Usage: VMAMBA=CLONE SITE=DIR bash benchmarks/scan/peers/build_vmamba.sh; then VMAMBA_SCAN=DIR/vmamba_scan.so.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
SITE=${SITE:-.}
PY=${PY:-python3}
TORCH=${TORCH:-$($PY -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')}
CUDA=${CUDA:-/usr/local/cuda}
STUBS=$(mktemp -d)
trap 'rm -rf "$STUBS"' EXIT
mkdir -p "$SITE" "$STUBS/c10/cuda" "$STUBS/ATen/cuda"
printf '#pragma once\n#define C10_CUDA_CHECK(call) (void)(call)\n#define C10_CUDA_KERNEL_LAUNCH_CHECK()\n' \
  > "$STUBS/c10/cuda/CUDAException.h"
# CUDA 13's CUB no longer has two names that the sources use.
cat >> "$STUBS/c10/cuda/CUDAException.h" <<'H'
namespace cub {
__device__ __forceinline__ unsigned LaneId() { return threadIdx.x % 32; }
__device__ __forceinline__ void CTA_SYNC() { __syncthreads(); }
}
H
printf '#pragma once\n__device__ inline float gpuAtomicAdd(float *to, float x) { return atomicAdd(to, x); }\n' \
  > "$STUBS/ATen/cuda/Atomic.cuh"
"$CUDA/bin/nvcc" -shared -o "$SITE/vmamba_scan.so" "$HERE/vmamba_peer.cu" -O3 -std=c++17 --use_fast_math \
  -U__CUDA_NO_HALF_OPERATORS__ -U__CUDA_NO_HALF_CONVERSIONS__ -U__CUDA_NO_BFLOAT16_OPERATORS__ \
  -U__CUDA_NO_BFLOAT16_CONVERSIONS__ -U__CUDA_NO_BFLOAT162_OPERATORS__ -U__CUDA_NO_BFLOAT162_CONVERSIONS__ \
  --expt-relaxed-constexpr --expt-extended-lambda -gencode arch=compute_90,code=sm_90 -Xcompiler -fPIC \
  -I"$STUBS" -I"$VMAMBA/kernels/selective_scan/csrc/selective_scan" -I"$TORCH/include"
ls -l "$SITE/vmamba_scan.so"
