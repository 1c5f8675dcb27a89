#!/usr/bin/env python3
"""Golden numbers of every test checkpoint through the CUDA backend.

cuda.py ENGINE [N]: the first N ids only, and of the greedy cases those of at most 2 N tokens, for an engine whose GPU
is emulated. Prints lines as golden.py does. F32 checkpoints are held to the CPU's tolerance; where weights have 16
bits, activations are rounded to bf16.
"""
import array
import json
import math
import os
import subprocess
import sys
import tempfile

from golden import MODELS, check_case, load, report

ROUNDED = ["models/m1-nano", "test/checkpoints/tiny-bf16-sharded"]
VARIANTS = [[], ["--decode"], ["--prefill-chunk", "37"]]


def check(engine, model, n, variant, folder):
    golden = load(os.path.join(model, "golden.safetensors"))
    name = f"{model} on cuda {' '.join(variant)}".strip()
    ids = os.path.join(folder, "ids")
    out = os.path.join(folder, "logits")
    n = min(n, len(golden["input_ids"]))
    with open(ids, "w") as f:
        f.write(" ".join(map(str, golden["input_ids"][:n])))
    run = subprocess.run([engine, "logits", "--device", "cuda", "--model", model, "--ids", ids, "--out", out,
                          "--max-context", str(n)] + variant, capture_output=True, text=True, timeout=300)
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
    if model in ROUNDED:
        report(compared > 0 and off <= 0.03, name, f"{off:.3g} of the logits' size")
    else:
        report(compared > 0 and worst <= 1, name, f"{worst:.3g} times the tolerance")


def check_cases(engine, n, folder):
    """Replies whose tokens are chosen on the device."""
    with open("models/m1-nano/greedy_cases.json") as f:
        for number, case in enumerate(json.load(f)):
            if case["prompt_tokens"] + case["completion_tokens"] <= 2 * n:
                check_case(engine, "models/m1-nano", number, case, folder, ["--device", "cuda"])


def main():
    engine = sys.argv[1]
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 30
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            for variant in VARIANTS:
                check(engine, model, n, variant, folder)
        check_cases(engine, n, folder)
    print("done")


main()
