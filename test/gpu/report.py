#!/usr/bin/env python3
"""report.py FILE.json PART [PEERS]: what bench.c has measured of one part, a few lines; of the part "peers", what
peers.py has measured beside it. report.py FILE.csv: what the profiler has.

Beside a time in parentheses: what was predicted, from the bytes or the operations that the part takes at least, this
card's own copy bandwidth and product rate, and the share of it that is to be reached (REACH).
"""
import csv
import json
import sys

REACH = {"one": 0.80, "many": 0.70, "quantized": 0.75, "prefill": 0.65, "lightning": 0.60, "softmax": 0.80}
DEAREST = 5  # kernels


def time(ms, share, reach):
    """A time, and the one that the share to be reached would give."""
    return f"{ms:.3f} ms (predicted {ms * share / reach:.3f}), {100 * share:.1f} %"


def against(ours, peer):
    """The peer's time over ours: above 1, ours is faster."""
    if "why" in peer:
        return f"peer: {peer['why']}"
    return f"peer {peer['ms']:.3f} ms, ratio {peer['ms'] / ours:.2f}"


def at(entries, tokens):
    return next((entry for entry in entries if entry["tokens"] == tokens), {"why": "was not come to"})


def ceilings(r):
    print(f"{r['device']}: copies {r['copy_bytes_per_s'] / 1e12:.3f} TB/s (read plus written), bf16 products "
          f"{r['bf16_product_operations_per_s'] / 1e12:.0f} T operations/s")


def weights(w):
    print(f"{w['weights']}, {w['layers']} layers: prefill of {w['prefill_tokens']} "
          f"{time(w['prefill_ms'], w['prefill_share_of_product_rate'], REACH['prefill'])} of the product rate")
    for d in w["decode"]:
        reach = REACH["quantized"] if w["weights"] != "BF16" else REACH["one" if d["batch"] == 1 else "many"]
        print(f"  decode of {d['batch']}: {time(d['ms'], d['share_of_copy_bandwidth'], reach)} of the bandwidth, "
              f"launched after {d['launching_ms']:.3f} ms")
    print("  80 layers, projected: " + "; ".join(
        f"{p['batch']} at once {p['ms_one_gpu']:.2f} ms on one GPU, {p['ms_eight_gpus']:.2f} on eight, of which "
        f"{p['outside_layers_ms']:.2f} outside the layers"
        for p in w["projected_80_layers"]))


def attention(r):
    for a in r["attention"]:
        print(f"prefill of {a['tokens']}, one layer: lightning "
              f"{time(a['lightning_ms'], a['lightning_share_of_copy_bandwidth'], REACH['lightning'])} of the bandwidth")
        if "softmax_ms" in a:
            print(f"  softmax {a['softmax_ms']:.3f} ms, {100 * a['softmax_share_of_product_rate']:.1f} % of the product "
                  "rate")
        else:
            print("  softmax is not prefilled to so many: it would take a minute")
    per_token = [a["lightning_ms"] / a["tokens"] for a in r["attention"]]
    print(f"lightning a token, slowest over fastest: {max(per_token) / min(per_token):.2f} (predicted below 1.1)")


def contexts(r):
    for c in r["contexts"]:
        print(f"one token after {c['tokens']}: lightning {c['lightning_layer_ms']:.4f} ms, softmax "
              f"{time(c['softmax_layer_ms'], c['softmax_share_of_copy_bandwidth'], REACH['softmax'])} of the bandwidth")


def read_peers(path):
    """What there is: they may have been stopped at any time."""
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError) as error:
        return {"why": f"peers have told nothing: {error}"}


def compare(r, peers):
    """Our times, which peers' failures do not hide, beside theirs."""
    if "why" in peers:
        print(peers["why"])
    for a in r.get("attention", []):
        for kind in ("softmax", "lightning"):
            if f"{kind}_ms" in a:
                ours = a[f"{kind}_ms"]
                print(f"prefill of {a['tokens']}, {kind}: {ours:.3f} ms, "
                      + against(ours, at(peers.get(kind, []), a["tokens"])))
    for c in r.get("contexts", []):
        ours = c["softmax_layer_ms"]
        print(f"one token after {c['tokens']}, softmax: {ours:.4f} ms, "
              + against(ours, at(peers.get("decode", []), c["tokens"])))


def graphs(r):
    for g in r["graphs"]:
        print(f"step of {g['batch']}: launched in {g['launching_ms']:.3f} ms of {g['ms']:.3f} kernel by kernel, in "
              f"{g['recorded_launching_ms']:.3f} of {g['recorded_ms']:.3f} as a graph (predicted below 0.100)")


def number(text):
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return 0.0


def profile(path):
    """The kernels that take most of the time of all launches; shares of the memory's and the processors' rates."""
    with open(path, newline="") as f:
        rows = list(csv.DictReader(line for line in f if line.startswith('"')))
    kernels = {}
    for row in rows[1:]:  # the first one has units
        ns = number(row["gpu__time_duration.sum"])
        entry = kernels.setdefault(row["Kernel Name"], [0.0, 0, 0.0, 0.0])
        entry[0] += ns
        entry[1] += 1
        entry[2] += ns * number(row["gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed"])
        entry[3] += ns * number(row["sm__throughput.avg.pct_of_peak_sustained_elapsed"])
    total = sum(k[0] for k in kernels.values())
    for name, k in sorted(kernels.items(), key=lambda item: -item[1][0])[:DEAREST]:
        print(f"{100 * k[0] / total:5.1f} % of the time: {name[:60]}, {k[1]} launches, memory {k[2] / k[0]:.0f} %, "
              f"processors {k[3] / k[0]:.0f} %")


def main():
    path, part = (sys.argv[1:3] + [None])[:2]
    if path.endswith(".csv"):
        return profile(path)
    with open(path) as f:
        r = json.load(f)
    if part == "peers":
        return compare(r, read_peers(sys.argv[3]))
    ceilings(r)
    parts = {"attention": attention, "contexts": contexts, "graphs": graphs}
    if part in parts:
        parts[part](r)
    else:
        weights(next(w for w in r["weights"] if w["weights"] == part))


main()
