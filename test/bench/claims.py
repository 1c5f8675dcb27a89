#!/usr/bin/env python3
"""What the architecture saves, measured and computed side by side.

claims.py ENGINE FOLDER [LENGTH...]: one geometry twice, as a hybrid (softmax attention in one layer of eight) and with
softmax attention in all layers, with random weights, in FOLDER; lengths are 1,000, 32,000 and 100,000 tokens by default.
Then the arithmetic of generating so many tokens with MiniMax-M1 and with DeepSeek-R1: operations.py.
Needs numpy, for the checkpoints.
"""
import json
import os
import re
import subprocess
import sys

import operations

GEOMETRY = ["--hidden", "256", "--layers", "8", "--heads", "8", "--head-dim", "32", "--kv-heads", "2", "--rotary-dim", "16",
            "--experts", "8", "--ffn", "256"]
KINDS = {"hybrid": "8", "softmax only": "1"}


def make(folder, every):
    path = os.path.join(folder, f"every-{every}")
    if not os.path.exists(os.path.join(path, "config.json")):
        subprocess.run([sys.executable, "test/tools/make_checkpoint.py", "small", path, "--softmax-every", every, *GEOMETRY],
                       check=True, stdout=subprocess.DEVNULL)
    return path


def planned(engine, path, length):
    """Bytes of a sequence, as `plan` computes them."""
    out = subprocess.run([engine, "plan", "--model", path, "--cpu", "--context", str(length)], check=True,
                         capture_output=True, text=True).stdout
    state = float(re.search(r"^state +([0-9.]+)", out, re.M)[1])
    keys = float(re.search(r"^keys and values +([0-9.]+)", out, re.M)[1])
    return state * 2 ** 20 + keys * 2 ** 10 * length


def measured(engine, path, length):
    """Seconds to the first token, and of a token behind so many."""
    out = subprocess.run([engine, "bench", "--model", path, "--device", "cpu", "--prefill", str(length), "--batch", "1",
                          "--tokens", "8", "--context", str(length)], check=True, capture_output=True, text=True).stdout
    speeds = json.loads(out)
    return (length / speeds["prefill_tokens_per_s"][str(length)],
            speeds["ms_per_token_at_context"][str(length)] / 1000)


def show_measured(engine, folder, lengths):
    print(f"{'tokens':>8}  {'':12}  {'sequence, MB':>12}  {'first token, s':>14}  {'a token, ms':>11}")
    for length in lengths:
        rows = {}
        for kind, every in KINDS.items():
            path = make(folder, every)
            rows[kind] = (planned(engine, path, length) / 1e6, *measured(engine, path, length))
            size, first, token = rows[kind]
            print(f"{length:8}  {kind:12}  {size:12.2f}  {first:14.2f}  {token * 1000:11.3f}", flush=True)
        saved = [100 * (1 - a / b) for a, b in zip(rows["hybrid"], rows["softmax only"])]
        print(f"{length:8}  {'saved':12}  {saved[0]:11.0f}%  {saved[1]:13.0f}%  {saved[2]:10.0f}%", flush=True)


def show_computed(engine):
    print(f"\n{'generated':>9}  {'MiniMax-M1':>10}  {'DeepSeek-R1':>11}  {'of it':>6}  {'compressed':>10}  {'of it':>6}")
    for n, m1, keys, share, compressed, share_compressed in operations.rows(engine):
        print(f"{n:9}  {m1:10.2e}  {keys:11.2e}  {share:6.0%}  {compressed:10.2e}  {share_compressed:6.0%}")


if __name__ == "__main__":
    show_measured(sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3:]] or [1000, 32000, 100000])
    show_computed(sys.argv[1])
