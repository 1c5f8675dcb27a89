"""What `minimax_m1_engine plan` computes of a sequence, and floating-point operations of generating n tokens by MiniMax-M1, as
it counts them (which a unit test compares with the engine's own), and by DeepSeek-R1 from the numbers of its config. Standard
library only."""
import re
import subprocess

LENGTHS = (1000, 32768, 65536, 100000)
MINIMAX_M1 = "test/checkpoints/minimax-m1"
DEEPSEEK_R1 = {"hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "q_lora_rank": 1536,
               "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
               "first_k_dense_replace": 3, "intermediate_size": 18432, "moe_intermediate_size": 2048,
               "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "vocab_size": 129280}


def planned(engine, model, n):
    """Of a sequence of n tokens: bytes of its state and of its keys and values on a CPU, operations of its prefill, of the
    head for one token, and of a whole token behind the others. Memory is said to be so fast that arithmetic is the bound."""
    out = subprocess.run([engine, "plan", "--model", model, "--cpu", "--context", str(n), "--requests", "1", "--tflops", "1000000",
                          "--bandwidth", "1e9"], check=True, capture_output=True, text=True).stdout

    def number(pattern):
        return float(re.search(pattern, out, re.M)[1])
    return {"state": number(r"^state +([0-9.]+)") * 2 ** 20,
            "keys": number(r"^keys and values +([0-9.]+)") * 2 ** 10 * n,
            "prefill": n * 1e18 / number(r"^prefill +([0-9]+)"),
            "head": 2e9 * number(r"([0-9.]+) B of the head"),
            "token": 1e18 / number(r"^decode +([0-9.]+)")}


def minimax_m1(engine, n):
    """Matrices, states and keys are in the prefill, to which the head of each token comes."""
    plan = planned(engine, MINIMAX_M1, n)
    return plan["prefill"] + n * plan["head"]


def deepseek_r1_parameters(c):
    """That a token is multiplied by."""
    d, heads = c["hidden_size"], c["num_attention_heads"]
    query = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]
    attention = (d * c["q_lora_rank"] + c["q_lora_rank"] * heads * query + d * (c["kv_lora_rank"] + c["qk_rope_head_dim"]) +
                 c["kv_lora_rank"] * heads * (c["qk_nope_head_dim"] + c["v_head_dim"]) + heads * c["v_head_dim"] * d)
    experts = (c["num_experts_per_tok"] + c["n_shared_experts"]) * 3 * d * c["moe_intermediate_size"] + d * c["n_routed_experts"]
    dense = c["first_k_dense_replace"]
    return (c["num_hidden_layers"] * attention + dense * 3 * d * c["intermediate_size"] +
            (c["num_hidden_layers"] - dense) * experts + d * c["vocab_size"])


def deepseek_r1(n, compressed, c=DEEPSEEK_R1):
    """Scores and values over a head's own keys, or over the compressed ones that all heads share, as it decodes."""
    rope = c["qk_rope_head_dim"]
    pair = (2 * c["kv_lora_rank"] + rope if compressed else c["qk_nope_head_dim"] + rope + c["v_head_dim"])
    keys = c["num_hidden_layers"] * 2 * c["num_attention_heads"] * pair * n / 2
    return n * (2 * deepseek_r1_parameters(c) + keys)


def rows(engine):
    """Of each length: M1's operations, and R1's with M1's share of them, over its keys and over compressed ones."""
    for n in LENGTHS:
        m1, keys, compressed = minimax_m1(engine, n), deepseek_r1(n, False), deepseek_r1(n, True)
        yield n, m1, keys, m1 / keys, compressed, m1 / compressed
