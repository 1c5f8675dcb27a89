#!/usr/bin/env python3
"""Writes a checkpoint with random weights in the released format: config.json, shards and their index.

make_checkpoint.py PRESET DIR [--seed N] [--hidden N] [--layers N] ... (options change the preset's geometry)

For benchmarks: the weights mean nothing, but they are stored as MiniMax-M1's are (BF16, the router F32) and give
activations of a sane size. Memory stays bounded by one tensor. Needs numpy.
"""
import argparse
import json
import os
import struct

import numpy as np

PRESETS = {
    # about 200 million parameters
    "small": dict(hidden=512, layers=8, softmax_every=8, heads=8, head_dim=64, kv_heads=2, rotary_dim=32, experts=16,
                  top_k=2, ffn=1024, vocab=4096),
    # about 1.7 billion parameters, 0.2 billion active
    "bench": dict(hidden=1024, layers=16, softmax_every=8, heads=16, head_dim=64, kv_heads=4, rotary_dim=32,
                  experts=32, top_k=2, ffn=1024, vocab=4096),
}
SHARD_BYTES = 1 << 30


def is_softmax(p, layer):
    return layer % p["softmax_every"] == p["softmax_every"] - 1


def check(p):
    """Says what is wrong with a geometry, or nothing."""
    if min(p.values()) < 1:
        return "every number must be at least 1"
    if p["heads"] % p["kv_heads"] != 0:
        return "kv_heads must divide heads"
    if p["rotary_dim"] % 2 != 0 or p["rotary_dim"] > p["head_dim"]:
        return "rotary_dim must be even and at most head_dim"
    if p["top_k"] > p["experts"]:
        return "top_k must be at most experts"
    return None


def config(p):
    return {
        "architectures": ["MiniMaxM1ForCausalLM"], "model_type": "minimax_m1", "vocab_size": p["vocab"],
        "hidden_size": p["hidden"], "num_hidden_layers": p["layers"],
        "attn_type_list": [int(is_softmax(p, i)) for i in range(p["layers"])], "num_attention_heads": p["heads"],
        "num_key_value_heads": p["kv_heads"], "head_dim": p["head_dim"], "rotary_dim": p["rotary_dim"],
        "rope_theta": 10000000, "intermediate_size": p["ffn"], "num_local_experts": p["experts"],
        "num_experts_per_tok": p["top_k"], "hidden_act": "silu", "rms_norm_eps": 1e-05, "postnorm": True,
        "layernorm_full_attention_alpha": 3.5565588200778455, "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_alpha": 3.5565588200778455, "layernorm_linear_attention_beta": 1.0,
        "layernorm_mlp_alpha": 3.5565588200778455, "layernorm_mlp_beta": 1.0, "shared_intermediate_size": 0,
        "tie_word_embeddings": False, "max_position_embeddings": 1048576,
    }


def tensors(p):
    """(name, shape, dtype) of every tensor, in file order."""
    d, width, kv = p["hidden"], p["heads"] * p["head_dim"], p["kv_heads"] * p["head_dim"]
    yield "model.embed_tokens.weight", (p["vocab"], d), "BF16"
    for i in range(p["layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (d,), "BF16"
        yield layer + "post_attention_layernorm.weight", (d,), "BF16"
        if is_softmax(p, i):
            yield layer + "self_attn.q_proj.weight", (width, d), "BF16"
            yield layer + "self_attn.k_proj.weight", (kv, d), "BF16"
            yield layer + "self_attn.v_proj.weight", (kv, d), "BF16"
            yield layer + "self_attn.o_proj.weight", (d, width), "BF16"
        else:
            yield layer + "self_attn.qkv_proj.weight", (3 * width, d), "BF16"
            yield layer + "self_attn.output_gate.weight", (width, d), "BF16"
            yield layer + "self_attn.norm.weight", (width,), "BF16"
            yield layer + "self_attn.out_proj.weight", (d, width), "BF16"
        yield layer + "block_sparse_moe.gate.weight", (p["experts"], d), "F32"
        for e in range(p["experts"]):
            expert = f"{layer}block_sparse_moe.experts.{e}."
            yield expert + "w1.weight", (p["ffn"], d), "BF16"
            yield expert + "w2.weight", (d, p["ffn"]), "BF16"
            yield expert + "w3.weight", (p["ffn"], d), "BF16"
    yield "model.norm.weight", (d,), "BF16"
    yield "lm_head.weight", (p["vocab"], d), "BF16"


def size(shape, dtype):
    return int(np.prod(shape)) * (4 if dtype == "F32" else 2)


def values(rng, name, shape, dtype):
    if len(shape) == 1:
        x = np.ones(shape, np.float32)
    else:
        x = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
    return x.tobytes() if dtype == "F32" else (x.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def shards(p):
    """Lists of tensors, each list at most SHARD_BYTES."""
    shard, filled = [], 0
    for t in tensors(p):
        if filled + size(*t[1:]) > SHARD_BYTES and shard:
            yield shard
            shard, filled = [], 0
        shard.append(t)
        filled += size(*t[1:])
    yield shard


def write_shard(path, shard, rng):
    header, at = {}, 0
    for name, shape, dtype in shard:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size(shape, dtype)]}
        at += size(shape, dtype)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in shard:
            f.write(values(rng, *t))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("dir")
    parser.add_argument("--seed", type=int, default=1)
    for key in PRESETS["bench"]:
        parser.add_argument("--" + key.replace("_", "-"), type=int)
    args = parser.parse_args()
    p = {key: default if getattr(args, key) is None else getattr(args, key)
         for key, default in PRESETS[args.preset].items()}
    wrong = check(p)
    if wrong:
        parser.error(wrong)
    rng = np.random.default_rng(args.seed)
    os.makedirs(args.dir, exist_ok=True)
    parts = list(shards(p))
    weight_map = {}
    for i, shard in enumerate(parts):
        name = f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        write_shard(os.path.join(args.dir, name), shard, rng)
        weight_map.update({t[0]: name for t in shard})
    with open(os.path.join(args.dir, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": weight_map}, f)
    # last, so that a folder with a config is a whole checkpoint
    with open(os.path.join(args.dir, "config.json"), "w") as f:
        json.dump(config(p), f, indent=1)


main()
