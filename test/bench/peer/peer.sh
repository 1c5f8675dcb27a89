#!/usr/bin/env bash
# peer.sh - our engine and llama.cpp on the same files, in turns, and the ratios of their medians. Writes
# build/bench/peer.json. Run it on an otherwise idle machine: llama.cpp's threads wait for each other by spinning, and
# any third process halves its speed.
#
#   PEER_FORMATS   weight formats to compare (default "q8_0 q4")
#   PEER_ROUNDS    turns of each engine (default 3)
#   PEER_PREFILL, PEER_BATCH   sizes (default 512,4096,32768 and 1,4,16,64)
#   BENCH_PRESET   the random checkpoint, see make_checkpoint.py (default bench)
set -euo pipefail
cd "$(dirname "$0")/../../.."
. scripts/lib.sh

VERSION=3.22.1 # of node-llama-cpp, whose package for linux-x64 holds llama.cpp built for several processors
PRESET=${BENCH_PRESET:-bench}
FORMATS=${PEER_FORMATS:-q8_0 q4}
ROUNDS=${PEER_ROUNDS:-3}
PREFILL=${PEER_PREFILL:-512,4096,32768}
BATCH=${PEER_BATCH:-1,4,16,64}
TOKENS=32
OUT=$BUILD/bench
PEER=$BUILD/peer
PYTHON=/usr/bin/python3
ENGINE=$BUILD/minimax_m1_engine

# The library from its package, the headers of the same commit from the bundle of its source beside it.
fetch_peer() {
    mkdir -p "$PEER"
    (
        cd "$PEER"
        npm pack --silent "node-llama-cpp@$VERSION" "@node-llama-cpp/linux-x64@$VERSION" > npm.log
        for package in "node-llama-cpp-$VERSION" "node-llama-cpp-linux-x64-$VERSION"; do
            mkdir -p "$package"
            tar xzf "$package.tgz" -C "$package"
        done
        git -c advice.detachedHead=false clone -q "node-llama-cpp-$VERSION/package/llama/gitRelease.bundle" headers
    )
}

build_peer() {
    local lib=$PEER/node-llama-cpp-linux-x64-$VERSION/package/bins/linux-x64
    [ -d "$PEER/headers" ] || fetch_peer
    LIBDIR=$lib
    cc -O2 -D_GNU_SOURCE -I"$PEER/headers/include" -I"$PEER/headers/ggml/include" test/bench/peer/peer.c \
        -o "$PEER/peer" -L"$lib" -l:"$(basename "$lib"/libllama.v*.so)" -l:"$(basename "$lib"/libggml.v*.so)" \
        -l:libggml-base.so -Wl,-rpath,"$lib"
}

make_models() {
    if [ ! -f "$OUT/$PRESET/config.json" ]; then
        mkdir -p "$OUT"
        "$PYTHON" test/tools/make_checkpoint.py "$PRESET" "$OUT/$PRESET"
    fi
    for format in $FORMATS; do
        [ -f "$OUT/$PRESET-$format.gguf" ] ||
            "$ENGINE" quantize "$OUT/$PRESET" "$OUT/$PRESET-$format.gguf" --weight-format "$format"
    done
}

# run_peer FILE MICRO-BATCH PREFILL BATCH OUT: what llama.cpp cannot do (3.22.1 ends with an assertion when several
# sequences decode with Q4_K weights) is missing from the table.
run_peer() {
    "$PEER/peer" "$1" "$LIBDIR" "$threads" "$2" "$3" "$4" "$TOKENS" > "$5" 2> "$PEER/peer.log" || {
        rm -f "$5"
        echo "llama.cpp failed at prefill of $3, batch $4: $(grep -m 1 -E 'ASSERT|failed' "$PEER/peer.log")" >&2
    }
}

build_peer
make_models
threads=$(nproc)
rm -f "$PEER"/*.json
for round in $(seq "$ROUNDS"); do
    for format in $FORMATS; do
        file=$OUT/$PRESET-$format.gguf
        echo "Round $round of $ROUNDS: $format ..." >&2
        "$ENGINE" bench --model "$file" --threads "$threads" --prefill "$PREFILL" --batch "$BATCH" --tokens "$TOKENS" \
            > "$PEER/$format.ours.$round.json"
        # which micro-batch suits llama.cpp best depends on the machine: its best of three counts
        for ubatch in 128 256 512; do
            run_peer "$file" $ubatch "${PREFILL%%,32768}" 1 "$PEER/$format.peer$ubatch.$round.json"
        done
        run_peer "$file" 256 "${PREFILL##*,}" 1 "$PEER/$format.peerlong.$round.json"
        run_peer "$file" 256 "${PREFILL%%,*}" "$BATCH" "$PEER/$format.peerbatch.$round.json"
    done
done
"$PYTHON" test/bench/peer/ratios.py "$PEER" "$OUT/peer.json" $FORMATS
