#!/usr/bin/env bash
# train.sh - how fast models learn, in turns with PyTorch on the same threads and the same checkpoints, and the ratios of
# the medians. Writes build/bench/train.json. Compare ratios: machines differ, and busy ones tell nothing.
#
#   THREADS         of both (default 2)
#   TRAIN_ROUNDS    turns of each (default 3)
#   TRAIN_PRESETS   random checkpoints of make_checkpoint.py beside m1-nano, of which all weights are trained (default
#                   small, of 200 million parameters)
#   ADAPTER_PRESETS such of which an adapter is trained, over weights in q8_0 (default bench, of 1.7 billion)
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

THREADS=${THREADS:-2}
ROUNDS=${TRAIN_ROUNDS:-3}
PRESETS=${TRAIN_PRESETS-small}
ADAPTED=${ADAPTER_PRESETS-bench}
PEERS=$PWD/../shared/peers/torch
OUT=$BUILD/bench
PYTHON=/usr/bin/python3
ENGINE=$BUILD/minimax_m1_engine
mkdir -p "$OUT"

# single_file NAME MODEL: a folder with the same checkpoint as the one file that PyTorch's side reads.
single_file() {
    local folder=$OUT/$1-torch
    mkdir -p "$folder"
    ln -sf "$(realpath "$2/config.json")" "$folder/config.json"
    ln -sf "$(realpath "$2"/model*.safetensors)" "$folder/model.safetensors"
    echo "$folder"
}

# checkpoint PRESET: makes it, if it is not there
checkpoint() {
    [ -f "$OUT/$1/config.json" ] || "$PYTHON" test/tools/make_checkpoint.py "$1" "$OUT/$1"
}

# turns NAME MODEL TOKENS SEQUENCES OPTION...: the engine's steps of so many sequences of so many tokens, and after each
# run what peer NAME MODEL TOKENS SEQUENCES does
turns() {
    local name=$1
    echo "Training $name ..." >&2
    for _ in $(seq "$ROUNDS"); do
        "$ENGINE" bench-train --model "$2" --tokens "$3" --sequences "$4" --threads "$THREADS" "${@:5}" | tr -d '\n'
        echo
        [ ! -d "$PEERS" ] || "$peer" "$1" "$2" "$3" "$4"
    done > "$OUT/train-$name.jsonl"
}

all_weights() {
    "$PYTHON" "$PEERS/train_step.py" "$(single_file "$1" "$2")" "$THREADS" "$3" "$4" 10
}

adapter() {
    "$PYTHON" test/bench/torch_adapter.py "$PEERS" "$2" "$THREADS" "$3" "$4" 10
}

[ -d "$PEERS" ] || echo "PyTorch's side is not here ($PEERS): only the engine is measured." >&2
peer=all_weights
turns m1-nano models/m1-nano 128 32
for preset in $PRESETS; do
    checkpoint "$preset"
    turns "$preset" "$OUT/$preset" 128 8
done
peer=adapter
for preset in $ADAPTED; do
    checkpoint "$preset"
    turns "$preset-adapter" "$OUT/$preset" 128 8 --rank 16 --weight-format q8_0
done
"$PYTHON" test/bench/train_report.py "$OUT" m1-nano $PRESETS ${ADAPTED:+${ADAPTED// /-adapter }-adapter}
