#!/usr/bin/env python3
"""report.py FOLDER: puts what bench.c and peers.py measured into one gpu.json, and prints it as one table."""
import json
import os
import sys


def read(folder, name):
    with open(os.path.join(folder, name)) as f:
        return json.load(f)


def peers(folder):
    """What the others took; the same excuse for all where their program crashed."""
    try:
        return read(folder, "gpu-peers.json")
    except ValueError:
        return {name: {"why": "peers.py failed"} for name in ("softmax", "lightning", "decode")}


def percent(share):
    return f"{100 * share:5.1f} %"


def against(ours, peer):
    """The peer's time over ours: above 1, ours is faster."""
    if "why" in peer:
        return f"peer: {peer['why']}"
    return f"peer {peer['ms']:9.3f} ms, ratio {peer['ms'] / ours:.2f}"


def peer_at(decode, tokens):
    """The peer's entry for that context; all of them have the same excuse where there are none."""
    if isinstance(decode, dict):
        return decode
    return next((entry for entry in decode if entry["tokens"] == tokens), {"why": "not measured"})


def print_device(r):
    layers = {w["weights"]: w["layers"] for w in r["weights"]}
    print(r["device"])
    print(f"  copy bandwidth           {r['copy_bytes_per_s'] / 1e12:8.3f} TB/s (read plus written)")
    print(f"  bf16 products            {r['bf16_product_operations_per_s'] / 1e12:8.1f} T operations/s")
    short = {name: n for name, n in layers.items() if n < r["layers_wanted"]}
    if short:
        print("  memory is short: instead of", r["layers_wanted"], "layers,",
              ", ".join(f"{n} in {name}" for name, n in short.items()))


def print_attention(r):
    a, p = r["attention"], r["peers"]
    print(f"one layer's attention alone, prefill of {a['tokens']} tokens in steps of {a['tokens_of_a_step']}")
    print(f"  lightning          {a['lightning_ms']:9.3f} ms  {percent(a['lightning_share_of_copy_bandwidth'])} of the "
          f"bandwidth     {against(a['lightning_ms'], p['lightning'])}")
    print(f"  softmax            {a['softmax_ms']:9.3f} ms  {percent(a['softmax_share_of_product_rate'])} of the "
          f"product rate  {against(a['softmax_ms'], p['softmax'])}")


def print_contexts(r):
    print("one token after so many others, BF16: a step of the slice; "
          "one lightning and one softmax layer's attention in it")
    for c in r["contexts"]:
        print(f"  {c['tokens']:>8} {c['step_ms']:9.3f} ms  lightning {c['lightning_layer_ms']:7.4f}  softmax "
              f"{c['softmax_layer_ms']:8.4f} ({percent(c['softmax_share_of_copy_bandwidth'])} of the bandwidth)  "
              f"{against(c['softmax_layer_ms'], peer_at(r['peers']['decode'], c['tokens']))}")
    lightning = [c["lightning_layer_ms"] for c in r["contexts"]]
    print(f"  lightning, slowest over fastest: {max(lightning) / min(lightning):.2f}")


def print_weights(r):
    print("weights, by type         prefill            decode: ms, of the bandwidth, launched after; ratio to BF16")
    base = {d["batch"]: d["ms"] for d in r["weights"][0]["decode"]}
    for w in r["weights"]:
        print(f"  {w['weights']:8} {w['layers']} layers  {w['prefill_tokens']} tokens {w['prefill_ms']:9.2f} ms, "
              f"{percent(w['prefill_share_of_product_rate'])} of the product rate")
        for d in w["decode"]:
            # layers may differ in number
            ratio = base[d["batch"]] / r["weights"][0]["layers"] / (d["ms"] / w["layers"])
            print(f"    batch {d['batch']:>3} {d['ms']:10.3f} ms {percent(d['share_of_copy_bandwidth'])}  "
                  f"{d['launching_ms']:7.3f} ms  {ratio:5.2f}")


def print_projection(r):
    print("projected to 80 layers, ms a step: one GPU, eight GPUs (tokens/s of eight)")
    for w in r["weights"]:
        for p in w["projected_80_layers"]:
            print(f"  {w['weights']:8} batch {p['batch']:>3} {p['ms_one_gpu']:10.2f} {p['ms_eight_gpus']:10.2f} "
                  f"({p['batch'] / p['ms_eight_gpus'] * 1e3:8.1f})")
    print("  a longer context adds, on one GPU: " +
          ", ".join(f"{c['added_ms_80_layers']:.2f} ms at {c['tokens']}" for c in r["contexts"][1:]))
    print("Assumptions: " + r["assumptions"] + ".")


def main():
    folder = sys.argv[1]
    r = read(folder, "gpu-engine.json")
    r["peers"] = peers(folder)
    with open(os.path.join(folder, "gpu.json"), "w") as f:
        json.dump(r, f, indent=2)
    print()
    for section in (print_device, print_attention, print_contexts, print_weights, print_projection):
        section(r)
    print(f"\nWritten to {folder}/gpu.json")


main()
