#!/usr/bin/env python3
"""Adapters through the engine's command line, against arithmetic of this file's own.

adapters.py ENGINE: writes LoRA adapters as PEFT does for a test checkpoint, adds them to its weights here, and compares
the logits of the model with the adapter, of the weights that were made here, and of those that `merge` makes. Prints a
line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only.
"""
import array
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile

from golden import has_isa, load, report, run_engine, threads_of

MODEL = "test/checkpoints/tiny-f32"
VARIANTS = [[], ["--decode"], ["--prefill-chunk", "37"], ["--threads", "2"], ["--isa", "portable"], ["--isa", "avx2"],
            ["--isa", "avx512"], ["--isa", "avx512vnni"]]
PREFIX = "base_model.model."
# Which modules: PEFT's config of each, and how rank and alpha follow from it.
ADAPTERS = {
    "attention": {"r": 4, "lora_alpha": 8, "target_modules": ["qkv_proj", "output_gate", "out_proj", "q_proj", "k_proj",
                                                              "v_proj", "o_proj"]},
    "experts": {"r": 16, "lora_alpha": 32, "target_modules": ".*experts\\.\\d+\\.w[123]", "rank_pattern": {"w1": 1, "w2": 3},
                "alpha_pattern": {"experts.2.w3": 5}},
    "router and head": {"r": 5, "lora_alpha": 7, "use_rslora": True, "target_modules": ["lm_head"],
                        "modules_to_save": ["block_sparse_moe.gate"]},
    "low-rank router": {"r": 2, "lora_alpha": 3, "target_modules": ["gate"]},
}


def save(path, tensors):
    """tensors: {name: (shape, array of floats)}"""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * len(data)]}
        offset += 4 * len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, data in tensors.values():
            data.tofile(f)


def shapes_of(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    return {name: t["shape"] for name, t in header.items() if name != "__metadata__"}


def pattern_value(patterns, module, otherwise):
    return next((value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), otherwise)


def is_target(config, module):
    targets = config["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    return any(module == t or module.endswith("." + t) for t in targets)


def numbers(rng, n, width):
    return array.array("f", [rng.uniform(-width, width) for _ in range(n)])


def make(config, shapes, weights, folder, rng):
    """Writes the adapter, and returns the merged weights."""
    tensors, merged = {}, dict(weights)
    for name, shape in shapes.items():
        module = name[:-len(".weight")]
        if any(module.endswith(saved) for saved in config.get("modules_to_save", [])):
            merged[name] = numbers(rng, shape[0] * shape[1], 0.2)
            tensors[PREFIX + name] = (shape, merged[name])
        elif is_target(config, module):
            rows, cols = shape
            rank = pattern_value(config.get("rank_pattern", {}), module, config["r"])
            alpha = pattern_value(config.get("alpha_pattern", {}), module, config["lora_alpha"])
            scale = alpha / (rank ** 0.5 if config.get("use_rslora") else rank)
            a, b = numbers(rng, rank * cols, 0.15), numbers(rng, rows * rank, 0.15)
            tensors[f"{PREFIX}{module}.lora_A.weight"] = ([rank, cols], a)
            tensors[f"{PREFIX}{module}.lora_B.weight"] = ([rows, rank], b)
            if module == "lm_head":  # PEFT saves the head's own weight with it
                tensors[f"{PREFIX}{module}.base_layer.weight"] = (shape, weights[name])
            merged[name] = array.array("f", [
                weights[name][i * cols + k] + scale * sum(b[i * rank + r] * a[r * cols + k] for r in range(rank))
                for i in range(rows) for k in range(cols)])
    os.makedirs(folder)
    save(os.path.join(folder, "adapter_model.safetensors"), tensors)
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", **config}, f)
    return merged


def logits(engine, model, ids, out, options):
    run = run_engine([engine, "logits", "--model", model, "--ids", ids, "--out", out, *threads_of(options), *options])
    if run.returncode != 0:
        report(False, f"logits of {model} {' '.join(options)}", run.stderr.strip())
        return None
    with open(out, "rb") as f:
        return array.array("f", f.read())


def compare(name, got, want):
    # NaN fails: it is not within any distance
    worst = 0.0
    for have, should in zip(got or [], want):
        excess = abs(have - should) / (2e-4 + 2e-4 * abs(should))
        worst = excess if not excess <= worst else worst
    report(got is not None and len(got) == len(want) and worst <= 1, name, f"{worst:.3g} times the tolerance")


def check(engine, name, config, base, folder, ids):
    adapter, by_hand, out = (os.path.join(folder, part) for part in ("adapter", "by_hand", "out"))
    shapes, weights, plain = base
    merged = make(config, shapes, weights, adapter, random.Random(name))
    os.makedirs(by_hand)
    shutil.copy(os.path.join(MODEL, "config.json"), by_hand)
    save(os.path.join(by_hand, "model.safetensors"), {n: (shapes[n], merged[n]) for n in shapes})
    want = logits(engine, by_hand, ids, out, [])
    moved = max(abs(a - b) for a, b in zip(want, plain))
    report(moved > 0.1, f"adapter of {name}: it changes the logits", str(moved))
    for variant in VARIANTS:
        if variant[:1] != ["--isa"] or has_isa(variant[1]):
            compare(f"adapter of {name} {' '.join(variant)}".strip(),
                    logits(engine, MODEL, ids, out, ["--adapter", adapter, *variant]), want)
    for form in ("merged", "merged.gguf"):
        path = os.path.join(folder, form)
        run = run_engine([engine, "merge", "--model", MODEL, "--adapter", adapter, "--out", path])
        report(run.returncode == 0, f"adapter of {name}: {form}", run.stderr.strip())
        if run.returncode == 0:
            compare(f"adapter of {name}: logits, {form}", logits(engine, path, ids, out, []), want)


def main():
    engine = sys.argv[1]
    path = os.path.join(MODEL, "model.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        ids = os.path.join(folder, "ids")
        with open(ids, "w") as f:
            f.write(" ".join(str(i * 7919 % 320) for i in range(140)))
        plain = logits(engine, MODEL, ids, os.path.join(folder, "out"), [])
        for name, config in ADAPTERS.items():
            check(engine, name, config, (shapes_of(path), load(path), plain), os.path.join(folder, name), ids)
    print("done")


if __name__ == "__main__":
    main()
