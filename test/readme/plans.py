#!/usr/bin/env python3
"""What docs/scale.md says of machines, beside what `minimax_m1_engine plan` prints for MiniMax-M1 as released.

plans.py ENGINE [--update]: each row of the table of machines has the command that its numbers are of; --update writes them.
The checkpoint is config and index alone, as whoever plans has them. Then what plan reads of files that are there, and what
it refuses. Prints a line "ok ..." or "not ok ..." per case. Standard library only.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.append("test/bench")
import operations

ENGINE, UPDATE = sys.argv[1], "--update" in sys.argv
CHAPTER = "docs/scale.md"
RELEASED = "test/checkpoints/minimax-m1"
ROW = re.compile(r"^\| ([^|]+) \| `plan ([^`|]+)` \| ([^\n]+) \|$", re.M)


def report(ok, name, why=""):
    print(("ok " if ok else "not ok ") + name + (f": {why}" if why and not ok else ""), flush=True)


def plan(model, *arguments):
    done = subprocess.run([ENGINE, "plan", "--model", model, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def number(out, label, form=r"([0-9.]+)"):
    found = re.search(rf"^{label} .*?{form}", out, re.M)
    return float(found[1]) if found else None


def grouped(x):
    """Three digits and their thousands, as people read them."""
    digits = max(0, len(str(int(x))) - 3)
    return f"{int(round(x, -digits)):,}"


def cells_of(out):
    weights, each = number(out, "weights"), number(out, "weights", r"; ([0-9.]+) GB on each")
    fits = number(out, "room", r": ([0-9]+) of")
    context = number(out, "keys and values", r" of ([0-9]+) tokens")
    devices = int(out.split()[0])
    many = f", {each:.0f} GB on each" if devices > 1 else ""
    sequences = f"{fits:.0f} of {context:,.0f} tokens" if fits is not None else "they do not fit"
    return [f"{weights:,.0f} GB{many}", sequences, f"{grouped(number(out, 'decode'))} tokens/s",
            f"{grouped(number(out, 'prefill'))} tokens/s"]


def check_table():
    with open(CHAPTER, encoding="utf-8") as f:
        text = f.read()

    def rewrite(match):
        cells = cells_of(plan(RELEASED, *match[2].split()))
        if not UPDATE:
            report(match[3].split(" | ") == cells, f"the plan of {match[1]}", f"{match[3]} is not {' | '.join(cells)}")
        return f"| {match[1]} | `plan {match[2]}` | {' | '.join(cells)} |"

    rewritten, n = ROW.subn(rewrite, text)
    report(n >= 4, "machines are planned", n)
    if UPDATE:
        with open(CHAPTER, "w", encoding="utf-8") as f:
            f.write(rewritten)


def operations_rows():
    for n, m1, keys, share, compressed, share_compressed in operations.rows(ENGINE):
        yield f"| {n:,} | {m1:.1e} | {keys:.1e} | {share:.0%} | {compressed:.1e} | {share_compressed:.0%} |".replace("e+", "e").replace("%", " %")


def check_operations():
    with open(CHAPTER, encoding="utf-8") as f:
        text = f.read()
    head = re.search(r"^\| generated tokens \|.*\n\|[ |-]+\n", text, re.M)
    end = text.index("\n\n", head.end())
    wanted = "\n".join(operations_rows())
    if UPDATE:
        with open(CHAPTER, "w", encoding="utf-8") as f:
            f.write(text[:head.end()] + wanted + text[end:])
    else:
        report(text[head.end():end] == wanted, "operations beside those of DeepSeek-R1", wanted)
        parameters = operations.deepseek_r1_parameters(operations.DEEPSEEK_R1)
        report(36.5e9 < parameters < 37.5e9, "of which a token takes 37 B parameters", parameters)


def check_index():
    out = plan(RELEASED)
    report(re.search(r"^index +912\.2 GB of tensors$", out, re.M), "the index is compared with what the config asks for", out)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("config.json", "model.safetensors.index.json"):
            with open(f"{RELEASED}/{name}", encoding="utf-8") as f, open(f"{folder}/{name}", "w", encoding="utf-8") as to:
                to.write(f.read().replace("912210767872", "812210767872"))
        out = plan(folder)
        report("index                  812.2 GB of tensors, while the config asks for 912." in out, "another one is told", out)
        os.remove(f"{folder}/model.safetensors.index.json")
        out = plan(folder)
        report("index" not in out and "456.09 B" in out, "a config alone is enough", out)


def check_files():
    """m1-nano of BF16, and files with blocks that quantize writes: the sizes are those of the files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, wide in (("q8_0", "q8_0"), ("q4", "q4_0")):
            path = f"{folder}/{name}.gguf"
            subprocess.run([ENGINE, "quantize", "models/m1-nano", path, "--weight-format", name], check=True, capture_output=True)
            by_header = number(plan(path, "--cpu"), "weights", r"([0-9.]+) GB")
            report(abs(by_header - os.path.getsize(path) / 1e9) < 0.1e-3 + 0.05, f"{name}: a file's header tells its types")
            lines = [plan(m, "--cpu", *more).splitlines()[1:] for m, *more in (
                (path,), ("models/m1-nano", "--weight-format", name), ("models/m1-nano", "--weight-format", wide))]
            report(lines[0] == lines[1] == lines[2], f"{name}: which are those that quantizing to {name} or {wide} makes", lines)
    kv = [number(plan(RELEASED, *more), "keys and values") for more in (
        ("--cpu",), ("--cpu", "--weight-format", "q8_0"), ())]
    report(kv[0] == 2 * kv[1] == 2 * kv[2], "keys and values are floats on the CPU unless experts are integers", kv)


def check_types():
    """Bits of a weight, of the large matrices: 454.6 B of 456.1 B."""
    for name, bits in {"q8_0": 8.5, "q4_0": 4.5, "q4_K": 4.5, "Q5_K": 5.5, "q6_k": 6.5625, "bf16": 16, "f32": 32}.items():
        got = number(plan(RELEASED, "--weight-format", name), "weights") * 1e9
        large = 456.09e9 - 2 * 200064 * 6144
        wanted = large * bits / 8 + 2 * 2 * 200064 * 6144
        report(abs(got / wanted - 1) < 2e-3, f"{name}: {bits} bits of a weight", (got, wanted))
    out = plan(RELEASED, "--weight-format", "q3")
    report('there is no weight format "q3"' in out, "another format is refused", out)
    out = plan("test/checkpoints/no-such")
    report("no-such" in out, "a folder that is not there is refused", out)


check_table()
check_operations()
if not UPDATE:
    check_index()
    check_files()
    check_types()
