#!/usr/bin/env python3
"""reference.py MODEL - writes golden.safetensors and greedy_cases.json of a new m1-nano, which the tests compare with.

Nothing of the engine makes them: tokenizer and forward pass are those of ../shared/nano and ../shared/peers/torch, in
fp32 and a token at a time. Needs Debian's python3-torch and python3-regex.
"""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.path.join(HERE, "../../../shared")
sys.path += [HERE, os.path.join(SHARED, "nano"), os.path.join(SHARED, "peers/torch")]

import bpe
import data
import m1_torch
import torch
import world

SYSTEM = "You are a helpful assistant."
CASES = {"summarize": 5, "summarize_several": 3, "classify": 4, "classify_by_word": 2, "yes_or_no": 5, "extract": 5,
         "add": 4, "find_fact": 4, "ask_field": 2, "small_talk": 3, "call_tools": 3}
LEAST_MARGIN = 0.05  # between the two likeliest tokens of every step: no rounding turns them round
GOLDEN_TOKENS = 62
GOLDEN_POSITIONS = [0, 1, 7, 31, 60, 61]
GREEDY_TOKENS = 32


def load_tokenizer(folder):
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as f:
        file = json.load(f)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in file["model"]["merges"]]
    added = {token["content"]: token["id"] for token in file["added_tokens"]}
    tokenizer = bpe.Tok(merges, list(added), file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
    tokenizer.vocab = file["model"]["vocab"]
    tokenizer.specials = added
    tokenizer.inv = {number: text for text, number in tokenizer.vocab.items()}
    tokenizer.inv_s = {number: text for text, number in added.items()}
    return tokenizer


def load_model(folder):
    with open(os.path.join(folder, "config.json")) as f:
        model = m1_torch.M1(json.load(f))
    model.load_state_dict(m1_torch.load_safetensors(os.path.join(folder, "model.safetensors")))
    return model.eval()


def greedy(model, ids, most, end=None):
    """The likeliest continuation, up to `end`, and the least margin between its tokens and the next likeliest."""
    logits, states = model(torch.tensor([ids]))
    out, margin = [], float("inf")
    while len(out) < most and (not out or out[-1] != end):
        best = logits[0, -1].topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        out.append(int(best.indices[0]))
        logits, states = model(torch.tensor([[out[-1]]]), states)
    return out, margin


def questions(task):
    """Examples of one turn, or the first turn of a conversation about tools, without end."""
    r = world.source(1, f"cases {task}")
    while True:
        example = world.example(r, task)
        if "prompt" in example:
            yield example["prompt"], None, example["answer"]
        else:
            first = example["messages"][1]["content"]
            yield example["messages"][0]["content"], example["tools"], first.split("</think>\n\n", 1)[1]


def case_of(model, tokenizer, task, user, tools, answer):
    prompt = tokenizer.encode(data.prompt_text(SYSTEM, tools, user))
    end = tokenizer.specials["<end_of_sentence>"]
    out, margin = greedy(model, prompt, 600, end)
    text = tokenizer.decode(out)
    reasoning, closed, content = text.removeprefix("<think>\n").removesuffix("<end_of_sentence>").partition(
        "\n</think>\n\n")
    if margin < LEAST_MARGIN or not closed or out[-1] != end:
        return None
    return {"task": task, "system": SYSTEM, "tools": tools, "user": user, "prompt_tokens": len(prompt),
            "completion_tokens": len(out), "reasoning": reasoning, "content": content, "correct": content == answer}


def cases(model, tokenizer):
    for task, count in CASES.items():
        found = 0
        for user, tools, answer in questions(task):
            case = case_of(model, tokenizer, task, user, tools, answer)
            if case:
                found += 1
                yield case
            if found == count:
                break


def golden(model, tokenizer):
    user, _, _ = next(questions("summarize"))
    ids = tokenizer.encode(data.prompt_text(SYSTEM, None, user))[:GOLDEN_TOKENS]
    logits, _ = model(torch.tensor([ids]))
    continuation, _ = greedy(model, ids, GREEDY_TOKENS)
    return {"input_ids": torch.tensor(ids), "positions": torch.tensor(GOLDEN_POSITIONS),
            "logits": logits[0, GOLDEN_POSITIONS].clone(), "greedy_ids": torch.tensor(continuation)}


def main():
    folder = sys.argv[1]
    torch.set_grad_enabled(False)
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    m1_torch.save_safetensors(os.path.join(folder, "golden.safetensors"), golden(model, tokenizer))
    with open(os.path.join(folder, "greedy_cases.json"), "w", encoding="utf-8") as f:
        json.dump(list(cases(model, tokenizer)), f, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
