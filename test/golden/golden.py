#!/usr/bin/env python3
"""Golden numbers of every test checkpoint, the greedy cases of m1-nano, the same models as GGUF files, and the error of
quantized weights, through the engine's command line.

golden.py ENGINE: prints a line "ok ...", "not ok ..." or "skip ..." per case, and "done" at the end. Standard library only.
"""
import array
import concurrent.futures
import json
import math
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile

MODELS = ["models/m1-nano", "test/checkpoints/tiny-f32", "test/checkpoints/tiny-bf16-sharded",
          "test/checkpoints/tiny-odd"]
# How the ids may be fed and by which instruction set: the numbers must be the same every way.
VARIANTS = [[], ["--decode"], ["--prefill-chunk", "1000"], ["--prefill-chunk", "37"], ["--threads", "2"],
            ["--isa", "portable"], ["--isa", "avx2"], ["--isa", "avx512"],
            ["--isa", "avx512vnni"]]
# The error of quantized weights on texts of m1-nano: Kullback-Leibler divergence of the next token's probabilities in
# nats, at most, and share of positions where the likeliest token is the same, at least. Prompts have more of it: only
# pretraining learnt them, and what came after has left large logits there (by the pretrained weights, q8_0 has 9e-5 in
# prompts, a thirtieth). docs/models.md has what was measured.
QUANTIZED = {"q8_0": {"replies": (5e-5, 0.995), "prompts": (5e-3, 0.97)},
             "fp8": {"replies": (2e-4, 0.995), "prompts": (4e-2, 0.96)},
             "q4": {"replies": (5e-3, 0.99), "prompts": (6e-2, 0.93)}}
ONE_THREAD = ["--threads", "1"]  # where nothing else is said: threads that wait poll
ON_LOAD = ["fp8"]  # a GGUF file cannot hold it
AT_ONCE = 8  # tasks of tests on a device
PROMPTS = 7  # of so many cases the prompt is looked at, too; a case in five is of another task


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


def tell(line):
    """A line as a whole, whoever else prints."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def report(ok, name, why=""):
    tell(("ok " if ok else "not ok ") + name + (": " + why if why and not ok else ""))


def attempt(task):
    """A task is a name, a function and its arguments; what it raises fails it alone."""
    name, run, *arguments = task
    try:
        run(*arguments)
    except Exception as error:
        report(False, name, f"{type(error).__name__}: {error}")


def at_once(tasks):
    """Side by side: a device takes longer to be opened than to answer. Forked, as what is run may be no file."""
    workers = max(1, min(AT_ONCE, (os.cpu_count() or 1) // 2))
    with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        list(pool.map(attempt, tasks))


def has_isa(isa):
    flags = {"portable": [], "avx2": ["avx2", "fma"], "avx512": ["avx512f", "avx512bw", "avx512dq", "avx512vl"],
             "avx512vnni": ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"]}[isa]
    with open("/proc/cpuinfo") as f:
        have = next((line.split() for line in f if line.startswith("flags")), [])
    return all(flag in have for flag in flags)


def threads_of(options):
    return [] if "--threads" in options else ONE_THREAD


def check_logits(engine, model, golden, ids, folder, variant):
    out = os.path.join(folder, "logits")
    name = f"{model} logits {' '.join(variant)}".strip()
    run = subprocess.run([engine, "logits", "--model", model, "--ids", ids, "--out", out] + threads_of(variant) + variant,
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
                          str(len(golden["greedy_ids"])), *ONE_THREAD], capture_output=True, text=True, timeout=300)
    got = [int(x) for x in run.stdout.split()]
    report(got == list(golden["greedy_ids"]), f"{model} greedy ids", run.stderr.strip() or str(got))


def expected(case):
    """What a reply is taken apart into: the model's text, and the calls that it makes in it."""
    content, _, calls = case["content"].partition("<tool_calls>\n")
    calls = [json.loads(line) for line in calls.removesuffix("\n</tool_calls>").splitlines()]
    return {**case, "content": content, "tool_calls": calls}


def first_difference(engine, model, case, folder, options):
    """Of the expected reply, fed token by token: which one is not the likeliest, and how much likelier another is, as a
    share of the logits' size. None where all are."""
    ids, prompt = reply_ids(engine, model, case)
    got = logits(engine, model, ids, folder, ["--decode", *options])
    vocab = len(got) // len(ids)
    for i in range(prompt - 1, len(ids) - 1):
        row = got[i * vocab:(i + 1) * vocab]
        gap = max(row) - row[ids[i + 1]]
        if not gap <= 0:
            return i + 1 - prompt, gap / math.sqrt(sum(x * x for x in row) / vocab)
    return None


def judge_difference(engine, model, name, case, folder, options, tolerance, wrong):
    """Another reply is right where rounding decides: where the two tokens' logits are nearer than both may be off."""
    differs = None if case["tools"] else first_difference(engine, model, case, folder, options)
    if differs is None:
        return report(False, name, wrong)
    token, gap = differs
    tell(f"# {name}: token {token} of the reply differs, by {gap:.3g} of the logits' size")
    report(gap <= 2 * tolerance, name, wrong)


def check_case(engine, model, number, case, folder, options=(), tolerance=0.0):
    """tolerance: how far logits may be off, as a share of their size; 0: not at all."""
    command = [engine, "generate", "--model", model, "--prompt", case["user"], "--system", case["system"],
               "--temperature", "0", "--json", *ONE_THREAD, *options]
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
    want = expected(case)
    wrong = [f"{key} is {got[key]!r}, not {want[key]!r}"
             for key in ("content", "reasoning", "tool_calls", "prompt_tokens", "completion_tokens")
             if (got[key] or "") != (want[key] or "")]
    if wrong and tolerance > 0:
        return judge_difference(engine, model, name, case, folder, options, tolerance, "; ".join(wrong))
    report(not wrong, name, "; ".join(wrong))


def run_engine(command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)


def convert(engine, model, form, folder):
    """The path of the model as a GGUF file, or None."""
    out = os.path.join(folder, f"{os.path.basename(model)}-{form}.gguf")
    run = run_engine([engine, "quantize", model, out, "--weight-format", form])
    report(run.returncode == 0, f"{model} quantize {form}", run.stderr.strip())
    return out if run.returncode == 0 else None


def reply_ids(engine, model, case):
    """(ids, length of the prompt) of a greedy case without tools, as the engine renders and continues it."""
    prompt = (f"<begin_of_document><beginning_of_sentence>system ai_setting=assistant\n{case['system']}"
              f"<end_of_sentence>\n<beginning_of_sentence>user name=user\n{case['user']}<end_of_sentence>\n"
              "<beginning_of_sentence>ai name=assistant\n")
    whole = f"{prompt}<think>\n{case['reasoning']}\n</think>\n\n{case['content']}<end_of_sentence>"
    run = run_engine([engine, "tokenize", "--model", model, "--special"], whole)
    return [int(x) for x in run.stdout.split()], case["prompt_tokens"]


def replies(engine, model):
    """The same of all of them."""
    with open(os.path.join(model, "greedy_cases.json")) as f:
        for case in json.load(f):
            if not case["tools"]:
                yield reply_ids(engine, model, case)


def logits(engine, model, ids, folder, options=()):
    path, out = os.path.join(folder, "ids"), os.path.join(folder, "logits")
    with open(path, "w") as f:
        f.write(" ".join(map(str, ids)))
    run = run_engine([engine, "logits", "--model", model, "--ids", path, "--out", out, *ONE_THREAD, *options])
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip())
    with open(out, "rb") as f:
        return array.array("f", f.read())


def log_probabilities(values):
    most = max(values)
    log_sum = math.log(sum(math.exp(x - most) for x in values)) + most
    return [x - log_sum for x in values]


def divergence(want, got):
    """Of two rows of logits: the Kullback-Leibler divergence, and whether the likeliest token is the same."""
    p, q = log_probabilities(want), log_probabilities(got)
    return sum(math.exp(a) * (a - b) for a, b in zip(p, q)), p.index(max(p)) == q.index(max(q))


def compare(want, got, vocab, positions):
    """Sum of the divergences, number of equal likeliest tokens, number of positions."""
    rows = [divergence(want[i * vocab:(i + 1) * vocab], got[i * vocab:(i + 1) * vocab]) for i in positions]
    return [sum(kl for kl, _ in rows), sum(same for _, same in rows), len(rows)]


def check_quantized(engine, model, form, cases, folder):
    """cases: (ids, length of the prompt, logits of all positions with the weights as stored)."""
    if form in ON_LOAD:
        run = run_engine([engine, "quantize", model, os.path.join(folder, "refused.gguf"), "--weight-format", form])
        report(run.returncode != 0 and "cannot hold" in run.stderr, f"{model} quantize {form} is refused", run.stderr)
        path, options = model, ["--weight-format", form]
    else:
        path, options = convert(engine, model, form, folder), []
    if path is None:
        return
    sums = {"replies": [0.0, 0, 0], "prompts": [0.0, 0, 0]}
    as_on_load = True
    for number, (ids, prompt, want) in enumerate(cases):
        got = logits(engine, path, ids, folder, options)
        vocab = len(want) // len(ids)
        parts = {"replies": range(prompt - 1, len(ids) - 1)}
        if number % (len(cases) // PROMPTS) == 0:
            parts["prompts"] = range(prompt - 1)
            if form not in ON_LOAD:
                as_on_load = as_on_load and got == logits(engine, model, ids, folder, ["--weight-format", form])
        for part, positions in parts.items():
            sums[part] = [a + b for a, b in zip(sums[part], compare(want, got, vocab, positions))]
    for part, (total, same, n) in sums.items():
        most, least = QUANTIZED[form][part]
        # NaN fails: it is not at most anything
        report(total / n <= most and same / n >= least,
               f"{model} {form} {part}: divergence {total / n:.1e}, same likeliest token {100 * same / n:.2f} % of {n}",
               f"at most {most} and at least {100 * least} % are expected")
    if form not in ON_LOAD:
        report(as_on_load, f"{model} {form}: quantized on load, the numbers are those of the file")


def check_quantization(engine, model, folder):
    cases = [(ids, prompt, logits(engine, model, ids, folder)) for ids, prompt in replies(engine, model)]
    report(len(cases) > 30 and all(len(ids) > prompt for ids, prompt, _ in cases), f"{model} texts for quantized weights")
    for form in QUANTIZED:
        check_quantized(engine, model, form, cases, folder)


def check_gguf(engine, model, golden, ids, folder):
    """As a GGUF file with the weights as they were, a model gives its golden numbers."""
    path = convert(engine, model, "stored", folder)
    if path is not None:
        for variant in VARIANTS[:2]:
            check_logits(engine, path, golden, ids, folder, variant)
        check_greedy_ids(engine, path, golden, ids)


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
            check_gguf(engine, model, golden, ids, folder)
        with open("models/m1-nano/greedy_cases.json") as f:
            for number, case in enumerate(json.load(f)):
                check_case(engine, "models/m1-nano", number, case, folder)
        check_quantization(engine, "models/m1-nano", folder)
    print("done")


if __name__ == "__main__":
    main()
