#!/usr/bin/env bash
# bench.sh BENCH [small] - times the engine on a GPU (bench.c) and its peers on the same shapes (peers.py), writes
# build/bench/gpu.json, and prints one table. What has been measured is not lost when something fails later.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
. test/gpu/libraries.sh
OUT=build/bench
mkdir -p $OUT
rm -f $OUT/gpu-engine.json

find_libraries "$1" || exit 1
status=0
"$1" $OUT/gpu-engine.json "${@:2}" || status=1
[ -s $OUT/gpu-engine.json ] || exit 1
python3 test/gpu/peers.py "${@:2}" > $OUT/gpu-peers.json || echo "peers.py failed" >&2
python3 test/gpu/report.py $OUT && exit $status
