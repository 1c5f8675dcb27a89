#!/usr/bin/env python3
"""ratios.py FOLDER OUT FORMAT...: reads what peer.sh measured, prints the ratios and writes them as JSON.

Of each engine the median over the rounds counts; of llama.cpp the best of its micro-batch sizes.
"""
import glob
import json
import re
import statistics
import sys


def medians(pattern):
    """{metric: {size: median over rounds}} of the files of one engine and setting."""
    runs = [json.load(open(path)) for path in glob.glob(pattern)]
    result = {}
    for metric in ("prefill_tokens_per_s", "decode_tokens_per_s"):
        sizes = {size for run in runs for size in run[metric]}
        result[metric] = {size: statistics.median(run[metric][size] for run in runs if size in run[metric])
                          for size in sizes}
    result["resident_bytes"] = {"": statistics.median(run["resident_bytes"] for run in runs)}
    return result


def settings(folder, fmt):
    """The patterns of llama.cpp's settings: files without their round."""
    names = glob.glob(f"{folder}/{fmt}.peer*.json")
    return sorted({re.sub(r"\.\d+\.json$", ".[0-9]*.json", name) for name in names})


def main():
    folder, out, formats = sys.argv[1], sys.argv[2], sys.argv[3:]
    results = {}
    for fmt in formats:
        ours = medians(f"{folder}/{fmt}.ours.[0-9]*.json")
        peers = [medians(pattern) for pattern in settings(folder, fmt)]
        print(f"\n{fmt:32} {'ours':>12} {'llama.cpp':>12} {'ratio':>7}")
        results[fmt] = {}
        for metric in ours:
            best = min if metric == "resident_bytes" else max
            for size in sorted(ours[metric], key=lambda s: int(s or 0)):
                theirs = [peer[metric][size] for peer in peers if size in peer[metric]]
                if not theirs:
                    continue
                mine, other = ours[metric][size], best(theirs)
                results[fmt][f"{metric} {size}".strip()] = {"ours": mine, "peer": other, "ratio": mine / other}
                print(f"{metric:26} {size:>5} {mine:12.4g} {other:12.4g} {mine / other:7.2f}")
    json.dump(results, open(out, "w"), indent=2)
    print(f"\nWritten to {out}")


main()
