#!/usr/bin/env bash
# train.sh - how fast models learn, in turns with PyTorch on the same threads and the same checkpoints, and the ratios of
# the medians. Writes build/bench/train.json. Compare ratios: machines differ, and busy ones tell nothing.
#
#   THREADS         of both (default 2)
#   TRAIN_ROUNDS    turns of each (default 3)
#   TRAIN_PRESETS   random checkpoints of make_checkpoint.py beside m1-nano (default small, of 200 million
#                   parameters)
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

THREADS=${THREADS:-2}
ROUNDS=${TRAIN_ROUNDS:-3}
PRESETS=${TRAIN_PRESETS-small}
PEER=$PWD/../shared/peers/torch/train_step.py
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

# turns NAME MODEL TOKENS SEQUENCES: steps of so many sequences of so many tokens
turns() {
    local name=$1 model=$2 tokens=$3 sequences=$4
    echo "Training $name ..." >&2
    for _ in $(seq "$ROUNDS"); do
        "$ENGINE" bench-train --model "$model" --tokens "$tokens" --sequences "$sequences" --threads "$THREADS" |
            tr -d '\n'
        echo
        if [ -f "$PEER" ]; then
            "$PYTHON" "$PEER" "$(single_file "$name" "$model")" "$THREADS" "$tokens" "$sequences" 10
        fi
    done > "$OUT/train-$name.jsonl"
}

[ -f "$PEER" ] || echo "PyTorch's side is not here ($PEER): only the engine is measured." >&2
turns m1-nano models/m1-nano 128 32
for preset in $PRESETS; do
    [ -f "$OUT/$preset/config.json" ] || "$PYTHON" test/tools/make_checkpoint.py "$preset" "$OUT/$preset"
    turns "$preset" "$OUT/$preset" 128 8
done
"$PYTHON" test/bench/train_report.py "$OUT" m1-nano $PRESETS
