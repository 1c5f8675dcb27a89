#!/usr/bin/env python3
"""peers.py FILE [small]: what others take for the attention that bench.c times, as one JSON object, which is written
after each length: whoever is stopped has left what there was.

One layer's prefill of so many tokens: linear attention with decay by flash-linear-attention's Triton kernel, and torch's
scaled_dot_product_attention (causal, 64 heads over 8 key/value heads); and the attention of one token after so many
others. Both in bf16, as they are used. Each is a list with an entry for each number of tokens: its milliseconds, or why
there are none. The comparison that is asked for comes first.
"""
import importlib
import importlib.util
import json
import os
import statistics
import sys
import types

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
    attend = lightning_of_fla().chunk_lightning_attn
    q, k, v = (torch.randn(1, tokens, HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    return milliseconds(torch, lambda: attend(q, k, v, layer_idx=0, num_layers=LAYERS, output_final_state=True))


def pass_by(package):
    """Its modules can be imported from now on, whatever it imports itself."""
    bare = types.ModuleType(package)
    bare.__path__ = list(importlib.util.find_spec(package).submodule_search_locations)
    sys.modules[package] = bare


def lightning_of_fla():
    """fla's packages import models, too, which need what a machine may lack."""
    kernel = "fla.ops.lightning_attn"
    for package in ("fla", "fla.ops"):
        try:
            return importlib.import_module(kernel)
        except Exception:
            pass_by(package)
    return importlib.import_module(kernel)


def why(what, error):
    return f"{what} failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def attempt(what, run):
    """{"ms": ...}, or {"why": ...} where it could not be run."""
    try:
        return {"ms": run()}
    except Exception as error:  # whatever a foreign kernel raises is a result
        return {"why": why(what, error)}


def import_torch():
    """torch with its GPU, or None, and why there is nothing to measure."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:
        return None, why("importing torch", error)
    return (torch, None) if torch.cuda.is_available() else (None, "torch sees no GPU")


def kinds(small):
    """(name, lengths, what is run, how) of each."""
    prefills = [32, 128] if small else [8192, 32768, 131072]
    long_prefills = prefills if small else [32768, 8192, 131072, 1048576]
    contexts = [64, 96, 128, 192, 256] if small else [4096, 32768, 131072, 524288, 1048576]
    sdpa = "scaled_dot_product_attention"
    return [("lightning", long_prefills, "chunk_lightning_attn", linear_ms),
            ("softmax", prefills, sdpa, lambda torch, n: sdpa_ms(torch, n, n)),
            ("decode", contexts, sdpa, lambda torch, n: sdpa_ms(torch, 1, n))]


def measured(torch, what, run, tokens):
    with torch.no_grad():
        entry = attempt(what, lambda: run(torch, tokens))
    torch.cuda.empty_cache()
    return entry


def write(path, result):
    """As a whole or not at all."""
    with open(path + ".new", "w") as f:
        json.dump(result, f, indent=2)
    os.replace(path + ".new", path)


def main():
    path = sys.argv[1]
    torch, nothing = import_torch()
    result = {"torch": torch.__version__} if torch else {}
    for name, lengths, what, run in kinds("small" in sys.argv[2:]):
        result[name] = []
        for n in lengths:
            entry = measured(torch, what, run, n) if torch else {"why": nothing}
            result[name].append({"tokens": n, **entry})
            write(path, result)


main()
