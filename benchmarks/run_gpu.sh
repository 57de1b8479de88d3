#!/usr/bin/env bash
# All the GPU benchmarks, one after another; what one cannot measure does not stop the next.
#   AUTHORS=DIR RESULTS=DIR bash benchmarks/run_gpu.sh [scan] [ssd] [networks] [profile]
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 | tr 'A-Z' 'a-z' | grep -oE '[a-z]?[0-9]+[a-z]*' | head -1)
for part in ${*:-scan ssd networks profile}; do
  began=$SECONDS
  case $part in
    scan) timeout 240 python3 -m benchmarks.scan.cuda --write "scan-${gpu:-gpu}" ;;
    ssd) timeout 240 python3 -m benchmarks.scan.ssd --write "ssd-${gpu:-gpu}" ;;
    networks) timeout 300 python3 -m benchmarks.networks.speed ${AUTHORS:+--authors "$AUTHORS"} --write "networks-${gpu:-gpu}" ;;
    profile) timeout 120 python3 -m benchmarks.networks.speed --profile ;;
    *) echo "unknown part $part: scan, ssd, networks or profile" ;;
  esac
  echo "-- $part: exit $?, $((SECONDS - began)) s"
done
