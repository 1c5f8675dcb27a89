#!/usr/bin/env python3
"""report.py FOLDER PRESET: gathers what bench.sh measured into results.json and prints it as one table."""
import glob
import json
import os
import statistics
import sys

LAST_CACHE = "/sys/devices/system/cpu/cpu0/cache/index*/size"


def cache_bytes():
    """The largest cache; 0 where the kernel does not tell."""
    sizes = [open(path).read().strip() for path in glob.glob(LAST_CACHE)]
    return max((int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]] for size in sizes), default=0)


def weight_bytes(model):
    """Of a checkpoint's folder or a GGUF file."""
    return sum(map(os.path.getsize, glob.glob(f"{model}/model*.safetensors") or [model]))


def engine(out, name, model):
    """What the engine measured. Weights that stay in a cache are not read from memory: no share of its bandwidth."""
    result = json.load(open(f"{out}/{name}.json"))
    result["weight_bytes"] = weight_bytes(model)
    if result["weight_bytes"] <= cache_bytes():
        result["decode_share_of_bandwidth"] = None
    return result


def overhead(out):
    """Medians of a reply's time through SQL, of the engine's part of that time, and as the command line tells it."""
    runs = [json.loads(line) for line in open(f"{out}/overhead.jsonl")]
    cli = [run["cli"]["prefill_ms"] + run["cli"]["decode_ms"] for run in runs]
    return {"sql_ms": statistics.median(run["sql_ms"] for run in runs), "cli_ms": statistics.median(cli),
            "added_ms": statistics.median(run["sql_ms"] - run["engine_ms"] for run in runs),
            "sql_to_cli": statistics.median(run["sql_ms"] / ms for run, ms in zip(runs, cli)),
            "tokens": runs[0]["cli"]["completion_tokens"]}


def cold_start(out):
    """Medians: from a file of which no page is in memory to a model, and just reading that file."""
    runs = [json.loads(line) for line in open(f"{out}/cold.jsonl")]
    return {"load_ms": statistics.median(run["engine"]["load_ms"] for run in runs),
            "read_ms": statistics.median(run["read_ms"] for run in runs)}


def print_engine(r):
    print(f"{r['model']}: {r['parameters'] / 1e6:.0f} M parameters on {r['device']}")
    for n, rate in r["prefill_tokens_per_s"].items():
        print(f"  prefill of {n:>6} tokens  {rate:10.0f} tokens/s")
    for n, rate in r["decode_tokens_per_s"].items():
        print(f"  decode at batch {n:>3}      {rate:10.0f} tokens/s")
    for n, ms in r["ms_per_token_at_context"].items():
        print(f"  a token after {n:>6}     {ms:10.2f} ms")
    print(f"  read per decoded token {r['bytes_per_token'] / 1e6:10.1f} MB")
    print(f"  memory bandwidth       {r['read_bandwidth_bytes_per_s'] / 1e9:10.1f} GB/s")
    if r["decode_share_of_bandwidth"] is None:
        print("  share reached, batch 1        n/a (the weights stay in the CPU's cache)")
    else:
        print(f"  share reached, batch 1 {100 * r['decode_share_of_bandwidth']:10.0f} %")
    print(f"  weights as stored      {r['weight_bytes'] / 1e6:10.0f} MB")
    print(f"  resident               {r['resident_bytes'] / 1e6:10.0f} MB")
    print(f"  loaded in              {r['load_ms'] / 1e3:10.1f} s")


def main():
    out, preset = sys.argv[1:]
    lines = lambda name: [json.loads(line) for line in open(f"{out}/{name}.jsonl")]
    results = {"engine": [engine(out, "m1-nano", "models/m1-nano"), engine(out, preset, f"{out}/{preset}")] +
                         [engine(out, f"{preset}-{f}", f"{out}/{preset}-{f}.gguf") for f in ("q8_0", "q4")],
               "cold_start": cold_start(out), "sql": lines("sql"), "overhead": overhead(out), "template_rows": lines("template_rows")}
    json.dump(results, open(f"{out}/results.json", "w"), indent=2)
    print()
    for r in results["engine"]:
        print_engine(r)
    c = results["cold_start"]
    print(f"{preset}-q8_0, cold: loaded in {c['load_ms'] / 1e3:.1f} s; reading the file alone {c['read_ms'] / 1e3:.1f} s")
    print("m1-nano through SQL, one summary a row:")
    for r in results["sql"]:
        print(f"  {r['clients']:>3} clients            {r['rows_per_s']:10.1f} rows/s")
    o = results["overhead"]
    print(f"a reply of {o['tokens']} tokens ({preset}, q8_0): {o['sql_ms']:.0f} ms through SQL, of which the engine did "
          f"not spend {o['added_ms']:.1f} ({100 * o['added_ms'] / o['sql_ms']:.1f} %); {o['cli_ms']:.0f} ms by the "
          f"command line (median of the turns' ratios {100 * (o['sql_to_cli'] - 1):+.1f} %)")
    print("through SQL, rows of 30 tokens over a template of 300:")
    for r in results["template_rows"]:
        print(f"  {r['model']:>8}, {r['clients']:>2} clients {r['rows_per_s_without']:8.1f} rows/s, with snapshots "
              f"{r['rows_per_s_with']:8.1f} ({r['rows_per_s_with'] / r['rows_per_s_without']:.1f} times)")
    print("\nWritten to build/bench/results.json")


main()
