#!/usr/bin/env python3
"""Golden numbers of every test checkpoint, and the greedy cases of m1-nano, through the engine's command line.

golden.py ENGINE: prints a line "ok ...", "not ok ..." or "skip ..." per case, and "done" at the end. Standard library only.
"""
import array
import json
import os
import struct
import subprocess
import sys
import tempfile

MODELS = ["models/m1-nano", "test/checkpoints/tiny-f32", "test/checkpoints/tiny-bf16-sharded",
          "test/checkpoints/tiny-odd"]
# How the ids may be fed and by which instruction set: the numbers must be the same every way.
VARIANTS = [[], ["--decode"], ["--prefill-chunk", "1000"], ["--prefill-chunk", "37"], ["--threads", "1"],
            ["--isa", "portable"], ["--isa", "avx2"], ["--isa", "avx512"],
            ["--isa", "avx512vnni"]]


def load(path):
    """The tensors of a safetensors file as {name: array}."""
    with open(path, "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(length))
        data = f.read()
    codes = {"I64": "q", "F32": "f"}
    tensors = {}
    for name, t in header.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            tensors[name] = array.array(codes[t["dtype"]], data[begin:end])
    return tensors


def report(ok, name, why=""):
    print(("ok " if ok else "not ok ") + name + (": " + why if why and not ok else ""), flush=True)


def has_isa(isa):
    flags = {"portable": [], "avx2": ["avx2", "fma"], "avx512": ["avx512f", "avx512bw", "avx512dq", "avx512vl"],
             "avx512vnni": ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"]}[isa]
    with open("/proc/cpuinfo") as f:
        have = next((line.split() for line in f if line.startswith("flags")), [])
    return all(flag in have for flag in flags)


def check_logits(engine, model, golden, ids, folder, variant):
    out = os.path.join(folder, "logits")
    name = f"{model} logits {' '.join(variant)}".strip()
    run = subprocess.run([engine, "logits", "--model", model, "--ids", ids, "--out", out] + variant,
                         capture_output=True, text=True, timeout=300)
    if run.returncode != 0:
        return report(False, name, run.stderr.strip())
    with open(out, "rb") as f:
        got = array.array("f", f.read())
    vocab = len(golden["logits"]) // len(golden["positions"])
    worst = 0.0
    for i, position in enumerate(golden["positions"]):
        for j in range(vocab):
            want = golden["logits"][i * vocab + j]
            have = got[position * vocab + j]
            # NaN fails: it is not within any distance
            excess = abs(have - want) / (2e-4 + 1e-4 * abs(want))
            worst = excess if not excess <= worst else worst
    report(len(got) == vocab * len(golden["input_ids"]) and worst <= 1, name, f"{worst:.3g} times the tolerance")


def check_greedy_ids(engine, model, golden, ids):
    run = subprocess.run([engine, "generate", "--model", model, "--ids", ids, "--temperature", "0", "--max-tokens",
                          str(len(golden["greedy_ids"]))], capture_output=True, text=True, timeout=300)
    got = [int(x) for x in run.stdout.split()]
    report(got == list(golden["greedy_ids"]), f"{model} greedy ids", run.stderr.strip() or str(got))


def check_case(engine, model, number, case, folder):
    command = [engine, "generate", "--model", model, "--prompt", case["user"], "--system", case["system"],
               "--temperature", "0", "--json"]
    if case["tools"]:
        tools = os.path.join(folder, "tools.json")
        with open(tools, "w") as f:
            json.dump(case["tools"], f)
        command += ["--tools", tools]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    name = f"{model} greedy case {number} ({case['task']})"
    if run.returncode != 0:
        return report(False, name, run.stderr.strip())
    got = json.loads(run.stdout)
    wrong = [f"{key} is {got[key]!r}, not {case[key]!r}"
             for key in ("content", "reasoning", "prompt_tokens", "completion_tokens")
             if (got[key] or "") != (case[key] or "")]
    if case["task"] == "tool" and not got["tool_calls"]:
        wrong.append("no tool call was found")
    report(not wrong, name, "; ".join(wrong))


def main():
    engine = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            golden = load(os.path.join(model, "golden.safetensors"))
            ids = os.path.join(folder, "ids")
            with open(ids, "w") as f:
                f.write(" ".join(map(str, golden["input_ids"])))
            for variant in VARIANTS:
                if variant[:1] != ["--isa"] or has_isa(variant[1]):
                    check_logits(engine, model, golden, ids, folder, variant)
                else:
                    print(f"skip {model} logits {' '.join(variant)}: this CPU has no {variant[1]}", flush=True)
            check_greedy_ids(engine, model, golden, ids)
        with open("models/m1-nano/greedy_cases.json") as f:
            for number, case in enumerate(json.load(f)):
                check_case(engine, "models/m1-nano", number, case, folder)
    print("done")


main()
