#!/usr/bin/env bash
# nano.sh ENGINE OUT - trains m1-nano anew, from nothing but seeds: data, tokenizer, pretraining, and supervised
# training.
#
# OUT/m1-nano is the result. What is there is not made again: an interrupted run goes on when it is called again, with
# the same EXAMPLES and STEPS.
set -euo pipefail

engine=$1
out=$2
here=$(dirname "$0")
examples=${EXAMPLES:-150000}
steps=${STEPS:-6500}
mkdir -p "$out"

# data PHASE EXAMPLES: OUT/PHASE.jsonl
data() {
    [ ! -e "$out/$1.jsonl" ] || return 0
    python3 "$here/make_data.py" "$1" "$1" "$2" "$out/$1.jsonl.tmp"
    mv "$out/$1.jsonl.tmp" "$out/$1.jsonl"
}
data 1 "$examples"
data 2 $((examples / 3))
if [ ! -e "$out/tokenizer/tokenizer.json" ]; then
    head -n 20000 "$out/1.jsonl" > "$out/some.jsonl"
    "$engine" tokenizer-train --data "$out/some.jsonl" --vocab-size 1600 --single-digits --out "$out/tokenizer"
    rm "$out/some.jsonl"
fi

# phase NUMBER DIR OPTION...: a training on its data, from its beginning or from its last checkpoint
phase() {
    local number=$1 dir=$2
    shift 2
    [ ! -e "$dir/training.safetensors" ] || set -- "$@" --resume
    "$engine" train "$@" --data "$out/$number.jsonl" --out "$dir" --held-out 0.005 --batch-tokens 3072 \
        --weight-decay 0.05 --save-every 200 --evaluate-every 500 --log "$dir.log"
}

# Prompts are learnt first, too, at a tenth: what the world is like. The rate stays high for half of it: finding a fact in
# a text is learnt late and at once, or, where the rate has fallen before, not at all.
phase 1 "$out/pretrained" --config "$here/../../models/m1-nano/config.json" --tokenizer "$out/tokenizer" --seed 1 \
    --prompt-weight 0.1 --steps "$steps" --lr 2e-3 --last-lr 4e-4 --warmup $((steps / 50)) --decay-steps $((steps / 2))
phase 2 "$out/m1-nano" --model "$out/pretrained" --seed 2 --steps $((steps * 2 / 3)) --lr 8e-4 --last-lr 1e-5 \
    --decay linear
python3 "$here/curve.py" "$out"/{pretrained,m1-nano}.log
python3 "$here/evaluate.py" "$engine" "$out/m1-nano" 200 "$examples"
