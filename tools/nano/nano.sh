#!/usr/bin/env bash
# nano.sh ENGINE OUT - trains m1-nano anew, from nothing but seeds: data, tokenizer, pretraining, supervised training.
#
# OUT/m1-nano is the result. What is there is not made again: an interrupted run goes on when it is called again, with
# the same EXAMPLES and STEPS.
set -euo pipefail

engine=$1
out=$2
here=$(dirname "$0")
examples=${EXAMPLES:-150000}
steps=${STEPS:-7000}
mkdir -p "$out"

if [ ! -e "$out/data.jsonl" ]; then
    python3 "$here/make_data.py" 1 "$examples" "$out/data.jsonl.tmp"
    mv "$out/data.jsonl.tmp" "$out/data.jsonl"
fi
if [ ! -e "$out/tokenizer/tokenizer.json" ]; then
    head -n 20000 "$out/data.jsonl" > "$out/some.jsonl"
    "$engine" tokenizer-train --data "$out/some.jsonl" --vocab-size 1600 --single-digits --out "$out/tokenizer"
    rm "$out/some.jsonl"
fi

# phase DIR OPTION...: one training, from its beginning or from its last checkpoint
phase() {
    local dir=$1
    shift
    [ ! -e "$dir/training.safetensors" ] || set -- "$@" --resume
    "$engine" train "$@" --data "$out/data.jsonl" --out "$dir" --held-out 0.005 --batch-tokens 3072 \
        --weight-decay 0.05 --save-every 200 --evaluate-every 500 --log "$dir.log"
}

# Prompts are learnt first, too, at a tenth: what the world is like.
phase "$out/pretrained" --config "$here/../../models/m1-nano/config.json" --tokenizer "$out/tokenizer" --seed 1 \
    --prompt-weight 0.1 --steps $((steps * 4 / 5)) --lr 2e-3 --last-lr 4e-4 --warmup $((steps / 50))
phase "$out/m1-nano" --model "$out/pretrained" --seed 2 --steps $((steps / 5)) --lr 4e-4 --last-lr 1e-5 --decay linear
