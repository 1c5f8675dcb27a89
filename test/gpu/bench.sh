#!/usr/bin/env bash
# bench.sh BENCH [small] - times the engine on a GPU (bench.c) and its peers on the same shapes (peers.py), writes
# build/bench/gpu.json, and prints one table.
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=build/bench
mkdir -p $OUT

"$@" > $OUT/gpu-engine.json
# what has been measured is not lost when foreign code crashes
python3 test/gpu/peers.py "${@:2}" > $OUT/gpu-peers.json || echo "peers.py failed" >&2
python3 test/gpu/report.py $OUT
