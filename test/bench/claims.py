#!/usr/bin/env python3
"""What the architecture saves, measured and computed side by side.

claims.py ENGINE FOLDER [LENGTH...]: one geometry twice, as a hybrid (softmax attention in one layer of eight) and with
softmax attention in all layers, with random weights, in FOLDER; lengths are 1,000, 32,000 and 100,000 tokens by default.
Memory is what is freed when the sequence goes. Then the arithmetic of generating so many tokens with MiniMax-M1 and with
DeepSeek-R1: operations.py. The last lines, "ok ..." or "not ok ...", say whether memory is what is computed.
Needs numpy, for the checkpoints: without it, it says that it skips all.
"""
import importlib.util
import json
import os
import subprocess
import sys

import operations

GEOMETRY = ["--hidden", "256", "--layers", "8", "--heads", "8", "--head-dim", "32", "--kv-heads", "2", "--rotary-dim", "16",
            "--experts", "8", "--ffn", "256"]
KINDS = {"hybrid": "8", "softmax only": "1"}
PAGE = 64  # tokens: the shortest sequence, whose memory beside a longer one's tells state and keys apart
ARTICLE = {100000: "the article says 83 % less memory and 67 % less latency"}
NEAR = 0.01  # of what is computed, by which memory may differ


def make(folder, every):
    path = os.path.join(folder, f"every-{every}")
    if not os.path.exists(os.path.join(path, "config.json")):
        subprocess.run([sys.executable, "test/tools/make_checkpoint.py", "small", path, "--softmax-every", every, *GEOMETRY],
                       check=True, stdout=subprocess.DEVNULL)
    return path


def measured(engine, path, length):
    """Bytes of state and of keys and values of a sequence, seconds to its first token, and of a token behind it."""
    pages = (length + PAGE - 1) // PAGE * PAGE  # a sequence has whole ones
    out = subprocess.run([engine, "bench", "--model", path, "--device", "cpu", "--prefill", f"{PAGE},{length}", "--batch", "1",
                          "--tokens", "8", "--context", str(length)], check=True, capture_output=True, text=True).stdout
    told = json.loads(out)
    short, whole = (told["sequence_bytes"][str(n)] for n in (PAGE, length))
    token = (whole - short) / (pages - PAGE)
    return {"state": short - PAGE * token, "keys": token * length,
            "prefill": length / told["prefill_tokens_per_s"][str(length)],
            "token": told["ms_per_token_at_context"][str(length)] / 1000}


def columns(seen, plan):
    """Each measured, and computed."""
    return [((seen["state"] + seen["keys"]) / 1e6, (plan["state"] + plan["keys"]) / 1e6), (seen["state"] / 1e6, plan["state"] / 1e6),
            (seen["prefill"], plan["prefill"] / 1e9), (seen["token"] * 1e3, plan["token"] / 1e6)]


HEAD = ["sequence, MB", "of it state, MB", "first token, s", "a token, ms"]
COMPUTED = ["computed", "computed", "GFLOP", "MFLOP"]


def show_saved(length, hybrid, softmax):
    cells = "".join(f"  {1 - a / b if b else 0:15.0%} {1 - c / d if d else 0:9.0%}" if i != 1 else " " * 27
                    for i, ((a, c), (b, d)) in enumerate(zip(hybrid, softmax)))
    print(f"{length:8}  {'saved':12}{cells}  {ARTICLE.get(length, '')}".rstrip(), flush=True)


def show_measured(engine, folder, lengths):
    """Returns what is not as computed."""
    print(f"{'tokens':>8}  {'':12}" + "".join(f"  {a:>15} {b:>9}" for a, b in zip(HEAD, COMPUTED)))
    apart = []
    for length in lengths:
        rows = []
        for kind, every in KINDS.items():
            path = make(folder, every)
            rows.append(columns(measured(engine, path, length), operations.planned(engine, path, length)))
            print(f"{length:8}  {kind:12}" + "".join(f"  {round(a, 3) + 0.0:15.3f} {b:9.3f}" for a, b in rows[-1]), flush=True)
            apart += [f"{kind} of {length}: {a:.3f} MB {what}, not {b:.3f}" for what, (a, b) in zip(("in all", "of state"), rows[-1])
                      if abs(a - b) > NEAR * rows[-1][0][1]]
        show_saved(length, *rows)
    return apart


def show_computed(engine):
    print(f"\n{'generated':>9}  {'MiniMax-M1':>10}  {'DeepSeek-R1':>11}  {'of it':>6}  {'compressed':>10}  {'of it':>6}")
    for n, m1, keys, share, compressed, share_compressed in operations.rows(engine):
        print(f"{n:9}  {m1:10.2e}  {keys:11.2e}  {share:6.0%}  {compressed:10.2e}  {share_compressed:6.0%}")


def main():
    if importlib.util.find_spec("numpy") is None:
        print("skip what the architecture saves: there is no numpy")
        return
    differences = show_measured(sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3:]] or [1000, 32000, 100000])
    show_computed(sys.argv[1])
    print("not ok " + "; ".join(differences) if differences else "ok a sequence takes the memory that is computed")


if __name__ == "__main__":
    main()
    print("done")
