#!/usr/bin/env python3
"""train_report.py FOLDER NAME...: the medians of what train.sh measured, and their ratios; into train.json, too."""
import json
import statistics
import sys

RATES = ("train_tokens_per_s", "forward_tokens_per_s")
OWN_RATES = (*RATES, "backward_tokens_per_s", "update_ms")


def medians(lines, rates=RATES):
    return {rate: statistics.median(line[rate] for line in lines) for rate in rates} if lines else None


def report(path):
    lines = [json.loads(line) for line in open(path)]
    own = [line for line in lines if "planned_bytes" in line]
    return {"engine": {**own[0], **medians(own, OWN_RATES)}, "torch": medians([line for line in lines if "torch" in line])}


def main():
    out, names = sys.argv[1], sys.argv[2:]
    results = {name: report(f"{out}/train-{name}.jsonl") for name in names}
    json.dump(results, open(f"{out}/train.json", "w"), indent=2)
    for name, r in results.items():
        own, torch = r["engine"], r["torch"]
        print(f"{name}: {own['trained_parameters'] / 1e6:.0f} M parameters trained, {own['sequences']} sequences of "
              f"{own['sequence_tokens']} tokens a step, {own['device']}")
        for rate, label in zip(RATES, ("training", "forward alone")):
            beside = f", PyTorch {torch[rate]:8.0f}, ratio {own[rate] / torch[rate]:.1f}" if torch else ""
            print(f"  {label:<14} {own[rate]:8.0f} tokens/s{beside}")
        # of all weights, gradients are twice the forward pass's products: of what comes in, and of the weights
        products = 1 if name.endswith("-adapter") else 2
        print(f"  backward alone {own['backward_tokens_per_s']:8.0f} tokens/s, "
              f"{100 * products * own['backward_tokens_per_s'] / own['forward_tokens_per_s']:.0f} % of the forward pass's "
              f"arithmetic rate; the optimizer {own['update_ms']:.1f} ms a step")
        print(f"  activations    {own['planned_bytes'] / 1e6:8.0f} MB planned; the process at its peak "
              f"{own['peak_bytes'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
