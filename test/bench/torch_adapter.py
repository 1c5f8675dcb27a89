#!/usr/bin/env python3
"""torch_adapter.py PEERS MODEL THREADS TOKENS SEQUENCES SECONDS - how fast PyTorch trains an adapter of the engine's
defaults: rank 16 beside the projections of attention, rank 1 beside those of experts, and the routers.

PEERS is the folder of m1_torch.py, the same architecture in PyTorch; MODEL has shards. Prints a line of JSON as
train_step.py there does: tokens/s of whole steps, and of forward passes alone, over weights in fp32.
"""
import json
import os
import sys
import time

import torch
from torch import nn

sys.path.append(sys.argv[1])
import m1_torch  # noqa: E402


class Adapted(nn.Module):
    """A matrix that stays as it is, and a small one beside it."""

    def __init__(self, linear, rank, alpha=32):
        super().__init__()
        self.linear, self.scale = linear, alpha / rank
        self.a = nn.Parameter(torch.rand(rank, linear.in_features) / linear.in_features ** 0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + (x @ self.a.T) @ self.b.T * self.scale


def adapt(module, rank, names):
    for name in names:
        if hasattr(module, name):
            setattr(module, name, Adapted(getattr(module, name), rank))


def load(folder):
    model = m1_torch.M1(json.load(open(f"{folder}/config.json")))
    weights = dict(model.named_parameters())
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            for key, tensor in m1_torch.load_safetensors(f"{folder}/{name}").items():
                weights[key].data.copy_(tensor)
    for weight in weights.values():
        weight.requires_grad_(False)
    for layer in model.model.layers:
        adapt(layer.self_attn, 16, ("qkv_proj", "output_gate", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj"))
        for expert in layer.block_sparse_moe.experts:
            adapt(expert, 1, ("w1", "w2", "w3"))
        layer.block_sparse_moe.gate.weight.requires_grad_(True)
    return model


def main():
    folder = sys.argv[2]
    threads, tokens, sequences, seconds = map(int, sys.argv[3:7])
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model = load(folder)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), eps=1e-15)
    ids = torch.randint(0, model.c["vocab_size"], (sequences, tokens + 1))

    def step(learns):
        logits, _ = model(ids[:, :-1])
        if learns:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()

    def rate(learns):
        step(learns)
        start, done = time.time(), 0
        while time.time() - start < seconds:
            step(learns)
            done += sequences * tokens
        return done / (time.time() - start)

    rates = {"train_tokens_per_s": rate(True)}
    with torch.no_grad():
        rates["forward_tokens_per_s"] = rate(False)
    print(json.dumps({"torch": torch.__version__, "threads": threads,
                      "trained_parameters": sum(p.numel() for p in trained), **rates}))


main()
