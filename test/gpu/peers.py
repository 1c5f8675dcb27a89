#!/usr/bin/env python3
"""peers.py FILE [small]: what others take for the attention that bench.c times, as one JSON object, which is written
after each kind: whoever is stopped has left what there was.

One layer's prefill of so many tokens: torch's scaled_dot_product_attention (causal, 64 heads over 8 key/value heads),
and linear attention with decay by flash-linear-attention's Triton kernel; and the attention of one token after so many
others. Both in bf16, as they are used. Each is a list with an entry for each number of tokens: its milliseconds, or why
there are none.
"""
import importlib
import json
import os
import statistics
import sys

HEADS, KV_HEADS, HEAD_DIM = 64, 8, 128
REPEATS = 5
LAYERS = 80


def milliseconds(torch, run):
    """Median of several runs after two that are not counted."""
    times = []
    for i in range(-2, REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        if i >= 0:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def sdpa_ms(torch, queries, keys):
    """Queries are the last tokens of as many keys."""
    shape = lambda heads, n: torch.randn(1, heads, n, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    q, k, v = shape(HEADS, queries), shape(KV_HEADS, keys), shape(KV_HEADS, keys)
    attend = torch.nn.functional.scaled_dot_product_attention
    return milliseconds(torch, lambda: attend(q, k, v, is_causal=queries > 1, enable_gqa=True))


def linear_ms(torch, tokens):
    attend = importlib.import_module("fla.ops.lightning_attn").chunk_lightning_attn
    q, k, v = (torch.randn(1, tokens, HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    return milliseconds(torch, lambda: attend(q, k, v, layer_idx=0, num_layers=LAYERS, output_final_state=True))


def attempt(what, run):
    """{"ms": ...}, or {"why": ...} where it could not be run."""
    try:
        return {"ms": run()}
    except Exception as error:  # whatever a foreign kernel raises is a result
        return {"why": f"{what} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def missing(*names):
    """Of these modules, those that cannot be imported, for whatever reason: they are others'."""
    absent = []
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            absent.append(name)
    return absent


def each(lengths, what, run):
    return [dict(tokens=n, **attempt(what, lambda: run(n))) for n in lengths]


def unmeasured(lengths, why):
    return [{"tokens": n, "why": why} for n in lengths]


def why_not():
    """Why nothing can be measured, or None."""
    if missing("torch"):
        return "torch is not installed"
    import torch
    return None if torch.cuda.is_available() else "torch sees no GPU"


def kinds(small):
    """(name, lengths, what is run, how) of each, the dearest to learn last."""
    prefills = [32, 128] if small else [8192, 32768, 131072]
    long_prefills = prefills if small else prefills + [1048576]
    contexts = [64, 96, 128, 192, 256] if small else [4096, 32768, 131072, 524288, 1048576]
    sdpa = "scaled_dot_product_attention"
    return [("softmax", prefills, sdpa, lambda torch, n: sdpa_ms(torch, n, n)),
            ("decode", contexts, sdpa, lambda torch, n: sdpa_ms(torch, 1, n)),
            ("lightning", long_prefills, "chunk_lightning_attn", linear_ms)]


def measure(kind, why):
    name, lengths, what, run = kind
    absent = missing("triton", "fla") if name == "lightning" and not why else []
    if absent:
        why = "not installed: " + ", ".join(absent)
    if why:
        return unmeasured(lengths, why)
    import torch
    with torch.no_grad():
        return each(lengths, what, lambda n: run(torch, n))


def write(path, result):
    """As a whole or not at all."""
    with open(path + ".new", "w") as f:
        json.dump(result, f, indent=2)
    os.replace(path + ".new", path)


def main():
    path = sys.argv[1]
    why = why_not()
    result = {} if why else {"torch": sys.modules["torch"].__version__}
    for kind in kinds("small" in sys.argv[2:]):
        result[kind[0]] = measure(kind, why)
        write(path, result)


main()
