#!/usr/bin/env python3
"""evaluate.py ENGINE MODEL [COUNT] - how many of COUNT unseen examples of each task a model answers, 200 by default.

Prints the table that the model's README has. Replies are greedy; an answer is right if it is the example's, letter by
letter. Of a conversation, the last turn of the assistant is asked for. Standard library only.
"""
import json
import os
import subprocess
import sys
import tempfile

import world

SEED = 1


def question(example):
    """The messages up to the last turn of the assistant, its answer without the reasoning, and the tools."""
    if "prompt" in example:
        return [world.asked(example["prompt"])], example["answer"], None
    last = example["messages"][-1]
    return example["messages"][:-1], last["content"].split("</think>\n\n", 1)[1], example.get("tools")


def write_json(folder, name, value):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)
    return path


def reply(engine, model, messages, tools):
    with tempfile.TemporaryDirectory() as folder:
        command = [engine, "generate", "--model", model, "--temperature", "0", "--max-tokens", "500", "--json",
                   "--messages", write_json(folder, "messages.json", messages)]
        if tools:
            command += ["--tools", write_json(folder, "tools.json", tools)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    said = json.loads(done.stdout)
    return said["content"] + (world.calls_text(said["tool_calls"]) if said["tool_calls"] else "")


def main():
    engine, model = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    print(f"| task | right of {count} |\n| --- | --- |")
    for task in world.TASKS:
        r = world.source(SEED, f"test {task}")
        right = 0
        for _ in range(count):
            messages, answer, tools = question(world.example(r, task))
            right += reply(engine, model, messages, tools) == answer
        print(f"| {task} | {right} |", flush=True)


if __name__ == "__main__":
    main()
