#!/usr/bin/env python3
"""curve.py LOG... - the curve of a training of several phases as a table: where a held-out loss was computed, that loss
and the mean of the losses of training since the one before. Logs are those of `minimax_m1_engine train`."""
import json
import sys


def lines(path):
    """Those of the last time that each step was done: a training that went on after a crash repeats some."""
    with open(path, encoding="utf-8") as f:
        by_step = {line["step"]: line for line in map(json.loads, f)}
    return [by_step[step] for step in sorted(by_step)]


def rows(path):
    losses = []
    for line in lines(path):
        losses.append(line["loss"])
        if "held_out_loss" in line:
            mean = sum(losses) / len(losses)
            yield line["step"], line["all_tokens"], line["learning_rate"], mean, line["held_out_loss"]
            losses = []


def main():
    print("| phase | step | tokens | learning rate | loss | held-out loss |\n| --- | --- | --- | --- | --- | --- |")
    for phase, path in enumerate(sys.argv[1:], 1):
        for step, tokens, rate, loss, held_out in rows(path):
            print(f"| {phase} | {step} | {tokens / 1e6:.1f} M | {rate:.1e} | {loss:.3f} | {held_out:.3f} |")


if __name__ == "__main__":
    main()
