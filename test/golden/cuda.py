#!/usr/bin/env python3
"""Golden numbers of every test checkpoint through the CUDA backend.

cuda.py ENGINE [N [GPUS]]: the first N ids only, and of the greedy cases those of at most 2 N tokens, for an engine whose
GPU is emulated (0: all ids, and a case of each task); on so many GPUs. Prints lines as golden.py does. F32 checkpoints
are held to the CPU's tolerance; where weights have 16 bits, activations are rounded to bf16, and a reply may differ where
that decides. What so many GPUs cannot
divide must be refused by the name of the field.
"""
import array
import json
import math
import os
import subprocess
import sys
import tempfile

from golden import MODELS, at_once, check_case, load, report, tell

ROUNDED = ["models/m1-nano", "test/checkpoints/tiny-bf16-sharded"]
TOLERANCE = 0.03  # of the logits' size, where activations are rounded
VARIANTS = [[], ["--decode"], ["--prefill-chunk", "37"]]
ALL = 1 << 30  # ids
LIMIT = 300  # seconds of one engine
DIVIDED = ["num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"]


def indivisible(model, gpus):
    """The first field of config.json that so many GPUs cannot divide, or None."""
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    return next((field for field in DIVIDED if config[field] % gpus != 0), None)


def check_refused(engine, model, gpus, field):
    run = subprocess.run([engine, "generate", "--device", "cuda", "--gpus", str(gpus), "--model", model, "--prompt", ""],
                         capture_output=True, text=True, timeout=LIMIT)
    report(run.returncode == 1 and field in run.stderr, f"{model} refused on {gpus} GPUs", run.stderr.strip())


def check(engine, model, n, gpus, variant, folder):
    golden = load(os.path.join(model, "golden.safetensors"))
    name = " ".join([model, "on cuda" if gpus == 1 else f"on {gpus} x cuda"] + variant)
    own = tempfile.mkdtemp(dir=folder)
    ids = os.path.join(own, "ids")
    out = os.path.join(own, "logits")
    n = min(n, len(golden["input_ids"]))
    with open(ids, "w") as f:
        f.write(" ".join(map(str, golden["input_ids"][:n])))
    run = subprocess.run([engine, "logits", "--device", "cuda", "--model", model, "--ids", ids, "--out", out,
                          "--gpus", str(gpus), "--max-context", str(n)] + variant, capture_output=True, text=True, timeout=LIMIT)
    if run.returncode != 0:
        return report(False, name, run.stderr.strip())
    with open(out, "rb") as f:
        got = array.array("f", f.read())
    vocab = len(golden["logits"]) // len(golden["positions"])
    compared = 0
    worst = difference = size = 0.0
    for i, position in enumerate(golden["positions"]):
        if position >= n:
            continue
        for want, have in zip(golden["logits"][i * vocab:(i + 1) * vocab], got[position * vocab:(position + 1) * vocab]):
            excess = abs(have - want) / (2e-4 + 1e-4 * abs(want))
            worst = excess if not excess <= worst else worst  # NaN fails
            difference += (have - want) ** 2
            size += want ** 2
            compared += 1
    off = math.sqrt(difference / size)
    tell(f"# {name}: off by {off:.3g} of the logits' size, {worst:.3g} times the tolerance")
    if model in ROUNDED:
        report(compared > 0 and off <= TOLERANCE, name, f"{off:.3g} of the logits' size")
    else:
        report(compared > 0 and worst <= 1, name, f"{worst:.3g} times the tolerance")


def chosen_cases(n):
    """(number, case) of those whose tokens are chosen on the device."""
    seen = set()
    with open("models/m1-nano/greedy_cases.json") as f:
        for number, case in enumerate(json.load(f)):
            if case["prompt_tokens"] + case["completion_tokens"] <= 2 * n and (n < ALL or case["task"] not in seen):
                seen.add(case["task"])
                yield number, case


def tasks(engine, n, gpus, folder):
    """For at_once."""
    for model in MODELS:
        field = indivisible(model, gpus)
        if field:
            yield f"{model} refused", check_refused, engine, model, gpus, field
            continue
        for variant in VARIANTS:
            yield f"{model} {' '.join(variant)}", check, engine, model, n, gpus, variant, folder
    if gpus == 1:
        for number, case in chosen_cases(n):
            own = tempfile.mkdtemp(dir=folder)
            yield (f"greedy case {number}", check_case, engine, "models/m1-nano", number, case, own,
                   ["--device", "cuda"], TOLERANCE)


def main():
    engine = sys.argv[1]
    n = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2] != "0" else ALL
    gpus = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    with tempfile.TemporaryDirectory() as folder:
        at_once(tasks(engine, n, gpus, folder))
    print("done")


if __name__ == "__main__":
    main()
