#!/usr/bin/env python3
"""evaluate.py ENGINE MODEL [COUNT [EXAMPLES]] - how many of COUNT unseen examples of each task a model answers, 200 by
default.

Prints the table that the model's README has. Replies are greedy; an answer is right if it is the example's, letter by
letter. Of a conversation, the last turn of the assistant is asked for. What nano.sh has trained the model on is left
out, if EXAMPLES is what that was told (150000 by default), but for tasks that are learnt by heart. Standard library
only.
"""
import itertools
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


def key(messages):
    return hash(json.dumps(messages))


def seen_in_training(examples):
    """Of every conversation, also the questions before the last."""
    seen = set()
    for phase, count in ((1, examples), (2, examples // 3)):
        for example in world.training_examples(phase, phase, count):
            if "prompt" in example:
                seen.add(key([world.asked(example["prompt"])]))
                continue
            messages = example["messages"]
            seen.update(key(messages[:i]) for i, message in enumerate(messages) if message["role"] == "assistant")
    return seen


def unseen_examples(task, seen):
    r = world.source(SEED, f"test {task}")
    while True:
        messages, answer, tools = question(world.example(r, task))
        if task in world.BY_HEART or key(messages) not in seen:
            yield messages, answer, tools


def right_answers(engine, model, task, count, seen):
    return sum(reply(engine, model, messages, tools) == answer
               for messages, answer, tools in itertools.islice(unseen_examples(task, seen), count))


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
    seen = seen_in_training(int(sys.argv[4]) if len(sys.argv) > 4 else 150000)
    print(f"| task | right of {count} |\n| --- | --- |")
    for task in world.TASKS:
        print(f"| {task} | {right_answers(engine, model, task, count, seen)} |", flush=True)


if __name__ == "__main__":
    main()
