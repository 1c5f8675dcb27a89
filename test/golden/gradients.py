#!/usr/bin/env python3
"""Golden gradients of every test checkpoint, through the engine's command line, and batches that it must refuse.

gradients.py ENGINE [DEVICE [LOSS...]]: prints lines as golden.py does. On cuda, the tiny checkpoints alone, and of the
given losses, for an engine whose GPU is emulated. Standard library only.
"""
import json
import math
import operator
import os
import struct
import subprocess
import sys
import tempfile
from array import array

from golden import MODELS as GOLDEN_MODELS, ONE_THREAD, at_once, load, report, tell

LOSSES = ["weighted", "ce", "ce_aux", "cispo", "grpo", "dapo"]
TRAINED = "test/checkpoints/trained"  # the first m1-nano, whose gradients are known
MODELS = [TRAINED] + GOLDEN_MODELS[1:]
TOLERANCES = {TRAINED: 1e-3}  # of a gradient's norm
PROJECTIONS = 2
MASK = (1 << 64) - 1


def header(path):
    with open(path, "rb") as f:
        return json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))


def splitmix64(n):
    z = (n + 1) * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


class Signs:
    """+1 or -1 for each entry of a tensor, as many as the largest that was asked for."""

    def __init__(self):
        self.of = [array("b") for _ in range(PROJECTIONS)]

    def project(self, values, projection):
        signs = self.of[projection]
        for i in range(len(signs), len(values)):
            signs.append(-1 if splitmix64(i * PROJECTIONS + projection) >> 63 else 1)
        return math.fsum(map(operator.mul, values, signs))


def off(values, golden, row, loss, signs):
    """How far a tensor's samples, norm and projections are from the golden ones, in its norm."""
    samples = len(golden["index"]) // len(golden[f"grad.{loss}.norm"])
    norm = golden[f"grad.{loss}.norm"][row]
    index = golden["index"][row * samples:(row + 1) * samples]
    sample = golden[f"grad.{loss}.sample"][row * samples:(row + 1) * samples]
    projected = golden[f"grad.{loss}.proj"][row * PROJECTIONS:(row + 1) * PROJECTIONS]
    distances = [abs(math.sqrt(math.fsum(map(operator.mul, values, values))) - norm)]
    distances += [abs(values[i] - want) for i, want in zip(index, sample)]
    distances += [abs(signs.project(values, q) - want) for q, want in enumerate(projected)]
    if any(math.isnan(distance) for distance in distances):
        return math.inf
    return max(distances) / norm if norm > 0 else (0 if max(distances) == 0 else math.inf)


def run(engine, model, batch, loss, out, *more):
    return subprocess.run([engine, "gradients", "--model", model, "--batch", batch, "--loss", loss, "--out", out, *ONE_THREAD, *more],
                          capture_output=True, text=True, timeout=600)


SIGNS = Signs()  # of each process


def check(engine, device, model, loss, folder):
    batch = os.path.join(model, "grad_golden.safetensors")
    out = os.path.join(folder, f"gradients-{os.path.basename(model)}-{loss}")
    name = f"{model} gradients {loss}" + ("" if device == "cpu" else f" on {device}")
    # no more keys and values than the batch's: the rest would only take time to be made
    done = run(engine, model, batch, loss, out, "--device", device, "--max-context", "1024")
    if done.returncode != 0:
        return report(False, name, done.stderr.strip())
    golden = load(batch)
    names = header(batch)["__metadata__"]["parameters"].split()
    got = load(out)
    if sorted(got) != sorted(names + ["loss"]) or header(out)["loss"]["shape"] != []:
        return report(False, name, "it has other tensors than the model, or the loss is no scalar")
    worst = max((off(got[tensor], golden, row, loss, SIGNS), tensor) for row, tensor in enumerate(names))
    difference = abs(got["loss"][0] - golden[f"loss.{loss}"][0])
    if device != "cpu":
        tell(f"# {name}: {worst[1]} is {worst[0]:.3g} of its norm off, the loss {difference:.3g}")
    report(worst[0] <= TOLERANCES.get(model, 1e-4) and difference <= 2e-6 * (1 + abs(golden[f"loss.{loss}"][0])), name,
           f"{worst[1]} is {worst[0]:.3g} of its norm off, the loss {difference:.3g}")


def write(path, tensors):
    """A safetensors file of {name: (type, array)}."""
    listed, data = {}, b""
    for name, (kind, values) in tensors.items():
        raw = values.tobytes()
        listed[name] = {"dtype": kind, "shape": [len(values)], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(listed).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def check_refused(engine, folder):
    model = "test/checkpoints/tiny-f32"
    good = {"input_ids": ("I64", array("q", [1, 2, 3, 4, 5])), "offsets": ("I64", array("q", [0, 2, 5])),
            "prompt_len": ("I64", array("q", [1, 1]))}
    cases = [
        ("a batch", {}, "ce", [], 0, ""),
        ("a batch without offsets", {"offsets": None}, "ce", [], 1, 'no tensor "offsets"'),
        ("offsets beyond the tokens", {"offsets": ("I64", array("q", [0, 2, 6]))}, "ce", [], 1, "impossible offsets"),
        ("offsets that fall", {"offsets": ("I64", array("q", [0, 4, 3]))}, "ce", [], 1, "impossible offsets"),
        ("an empty sequence", {"offsets": ("I64", array("q", [0, 0, 5]))}, "ce", [], 1, "impossible offsets"),
        ("offsets that begin later", {"offsets": ("I64", array("q", [1, 2, 5]))}, "ce", [], 1, "impossible offsets"),
        ("tokens of no sequence", {"offsets": ("I64", array("q", [0, 2, 4]))}, "ce", [], 1, "do not end"),
        ("an id outside the vocabulary", {"input_ids": ("I64", array("q", [1, 2, 320, 4, 5]))}, "ce", [], 1,
         "token id 320"),
        ("a huge id", {"input_ids": ("I64", array("q", [1, 2, 1 << 40, 4, 5]))}, "ce", [], 1, "no token id"),
        ("ids of another type", {"input_ids": ("F32", array("f", [1, 2, 3, 4, 5]))}, "ce", [], 1, "no I64 vector"),
        ("too few prompt lengths", {"prompt_len": ("I64", array("q", [1]))}, "ce", [], 1, "right length"),
        ("no old log-probabilities", {}, "cispo", [], 1, "no tensor"),
        ("an unknown loss", {}, "mse", [], 2, "weighted, ce, ce_aux"),
        ("a sequence beyond the context", {}, "ce", ["--max-context", "2"], 1, "context of 2"),
        ("quantized weights", {}, "ce", ["--weight-format", "q8_0"], 1, "only floats can be trained"),
    ]
    for name, changes, loss, options, code, why in cases:
        path = os.path.join(folder, "batch")
        write(path, {key: value for key, value in {**good, **changes}.items() if value is not None})
        done = run(engine, TRAINED if "q8_0" in options else model, path, loss, os.path.join(folder, "out"),
                   *options)
        report(done.returncode == code and why in done.stderr, f"gradients of {name}", done.stderr.strip())


def main():
    engine = sys.argv[1]
    device = sys.argv[2] if len(sys.argv) > 2 else "cpu"
    losses = sys.argv[3:] or LOSSES
    models = MODELS if device == "cpu" else GOLDEN_MODELS[1:]
    with tempfile.TemporaryDirectory() as folder:
        at_once((f"{model} gradients {loss}", check, engine, device, model, loss, folder)
                for model in models for loss in losses)
        if device == "cpu":
            check_refused(engine, folder)
    print("done")


if __name__ == "__main__":
    main()
