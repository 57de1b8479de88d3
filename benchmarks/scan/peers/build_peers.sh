#!/usr/bin/env bash
# Build mamba-ssm's selective_scan_cuda and causal-conv1d's causal_conv1d_cuda for sm_90 alone, with the flags of their
# own setup.py less the other architectures. Half of mamba-ssm's instantiations are for complex A, which no network
# here has: they are left out (the dispatch macro refuses a complex A); the real kernels are compiled as released.
# The two source archives from PyPI lie in PEERS: `pip download --no-deps --no-build-isolation --no-binary :all:
# mamba-ssm==2.3.2.post1 causal-conv1d==1.7.0` with MAMBA_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE.
# TORCH, PYINC, EXT and CUDA may name another machine's PyTorch, so that a machine without a GPU builds for one with.
# Usage: PEERS=DIR SITE=DIR bash benchmarks/scan/peers/build_peers.sh [jobs]; then add SITE to PYTHONPATH.
set -euo pipefail
HERE=$(cd "${PEERS:-.}" && pwd)
JOBS=${1:-16}
SITE=${SITE:-$HERE/site}
WORK=${WORK:-$HERE/work}
PY=${PY:-python3}
CUDA=${CUDA:-/usr/local/cuda}  # not the folder of `nvcc`, which may be a wrapper
TORCH=${TORCH:-$($PY -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')}
PYINC=${PYINC:-$($PY -c 'import sysconfig; print(sysconfig.get_paths()["include"])')}
EXT=${EXT:-$($PY -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')}
STD=${STD:-c++17}
began=$SECONDS
mkdir -p "$SITE" "$WORK"
tar xzf "$HERE"/mamba_ssm-*.tar.gz -C "$WORK"
tar xzf "$HERE"/causal_conv1d-*.tar.gz -C "$WORK"
M=$(echo "$WORK"/mamba_ssm-*/) C=$(echo "$WORK"/causal_conv1d-*/)
S=${M}csrc/selective_scan
sed -i '/complex_t>/d' "$S"/selective_scan_fwd_*.cu
rm -f "$S"/*_complex.cu
# The branch `else if (WTYPE == ComplexFloat) {using; __VA_ARGS__();}` of the macro goes.
"$PY" - "$S/selective_scan.cpp" <<'P'
import re, sys
path = sys.argv[1]
text = open(path).read()
new, n = re.subn(r"\} else if \(WTYPE == at::ScalarType::ComplexFloat\) \{.*?\n.*?\n.*?\n(?=\s*\} else)", "", text)
assert n == 1, n
open(path, "w").write(new)
P
INC="-I$TORCH/include -I$TORCH/include/torch/csrc/api/include -I$PYINC -I$CUDA/include"
NV="-O3 -std=$STD -U__CUDA_NO_HALF_OPERATORS__ -U__CUDA_NO_HALF_CONVERSIONS__ -U__CUDA_NO_BFLOAT16_OPERATORS__
 -U__CUDA_NO_BFLOAT16_CONVERSIONS__ -U__CUDA_NO_BFLOAT162_OPERATORS__ -U__CUDA_NO_BFLOAT162_CONVERSIONS__
 --expt-relaxed-constexpr --expt-extended-lambda --use_fast_math -lineinfo -gencode arch=compute_90,code=sm_90
 -Xcompiler -fPIC"
one() {  # source, module name, include folder
  local obj=$1.o start=$SECONDS
  [ -s "$obj" ] && return 0
  local def="-DTORCH_API_INCLUDE_EXTENSION_H -DTORCH_EXTENSION_NAME=$2"
  case $1 in
    *.cu) "$CUDA/bin/nvcc" -c "$1" -o "$obj.tmp" $NV $def $INC -I"$3" ;;
    *) g++ -c "$1" -o "$obj.tmp" -O3 -std="$STD" -fPIC $def $INC -I"$3" ;;
  esac > "$1.log" 2>&1 || { echo "FAILED $1"; tail -30 "$1.log"; return 1; }
  mv "$obj.tmp" "$obj"
  echo "$((SECONDS - start)) s  $(basename "$1")"
}
export -f one; export NV INC STD CUDA
{ ls "$S"/*bwd*.cu "$S"/*fwd*.cu "$S"/*.cpp | sed "s|\$| selective_scan_cuda $S|"
  ls "$C"csrc/*.cu "$C"csrc/*.cpp | sed "s|\$| causal_conv1d_cuda ${C}csrc|"; } |
  xargs -P "$JOBS" -L 1 bash -c 'one "$0" "$1" "$2"'
LIBS="-L$TORCH/lib -lc10 -ltorch -ltorch_cpu -ltorch_python -lc10_cuda -ltorch_cuda"
CUDART=$(ls -d "$CUDA"/lib64/libcudart.so "$CUDA"/targets/x86_64-linux/lib/libcudart.so 2>/dev/null | head -1)
g++ -shared "$S"/*.o -o "$SITE/selective_scan_cuda$EXT" $LIBS "$CUDART"
g++ -shared "$C"csrc/*.o -o "$SITE/causal_conv1d_cuda$EXT" $LIBS "$CUDART"
strip --strip-unneeded "$SITE"/*.so
cp -r "${M}mamba_ssm" "${C}causal_conv1d" "$SITE"/
# mamba_ssm's own __init__ imports language models and needs packages that no network here uses (tilelang, quack).
printf '%s\n' '__version__ = "2.3.2.post1"' 'from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn, selective_scan_fn' 'from mamba_ssm.modules.mamba_simple import Mamba' > "$SITE/mamba_ssm/__init__.py"
find "$SITE" -name __pycache__ -prune -exec rm -rf {} +
echo "built in $((SECONDS - began)) s"; ls -l "$SITE"
