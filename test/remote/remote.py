#!/usr/bin/env python3
"""What a real llama-server makes of requests, beside the engine on this machine: token for token the same.

remote.py ENGINE ROOT: the server is in the folder ROOT, with its model /root/m1-nano.gguf. See run.sh. Standard library
only.
"""
import json
import math
import subprocess
import sys
import time

from frames import Engine
from llama import Server, report
from wire import CANCEL, DELTA

ENGINE, ROOT = sys.argv[1:]
MODEL = "models/m1-nano"
QUESTIONS = 20  # of the golden ones
PATIENCE = 8  # seconds without a server that requests wait at least: ten of them, and the server is asked again meanwhile
LABELS = '["positive","negative","neutral"]'
SCHEMA = '{"type":"object","properties":{"name":{"type":"string","maxLength":20},"age":{"type":"integer"}},"required":["name","age"]}'
CASES = {
    "a stop string": dict(prompt="Hello.", stops=["can"]),
    "no reasoning": dict(prompt="Hello.", budget=0),
    "a budget of reasoning": dict(prompt="Sort: 5 3 9 1", budget=5),
    "choices": dict(prompt="Classify: the product broke after a day", kind="choices", form=LABELS),
    "choices at once": dict(prompt="Classify: the product broke after a day", kind="choices", form=LABELS, budget=0),
    "JSON of a schema": dict(prompt="Extract: Anna is 33 years old", kind="schema", form=SCHEMA),
    "JSON at once": dict(prompt="Extract: Anna is 33 years old", kind="schema", form=SCHEMA, budget=0),
    "a regular expression": dict(prompt="Who are you?", kind="regex", form="I am [A-Za-z0-9 -]{10,80}\\.", budget=0),
    "characters of several bytes": dict(prompt="Say it", kind="regex", form="[\u00e4\u00f6\u00fc\u20ac]{3,5}x?", budget=0),
    "token ids": dict(ids=[1, 2, 3], max_tokens=20),
    "max_tokens": dict(prompt="Hello.", max_tokens=4),
}
SAME = ("status", "content", "reasoning", "ids", "finish", "prompt_tokens", "reasoning_tokens", "tokens", "streamed")


def same(got, wanted, name):
    differ = {key: (got.get(key), wanted.get(key)) for key in SAME if got.get(key) != wanted.get(key)}
    report(not differ, name, differ)


def check_golden(elsewhere, here):
    with open(f"{MODEL}/greedy_cases.json", encoding="utf-8") as f:
        cases = [case for case in json.load(f) if not case["tools"]][:QUESTIONS]
    for i, case in enumerate(cases):
        request = dict(prompt=case["user"], system=case["system"], stream=i % 2 == 0)
        same(elsewhere.run(**request), here.run(**request), f"golden question {i + 1}, {case['task']}")


def check_scores(elsewhere, here):
    request = dict(prompt="Classify: the product broke after a day", kind="choices", form=LABELS, score=True)
    got, wanted = elsewhere.run(**request), here.run(**request)
    near = [math.isclose(math.exp(a), math.exp(b), abs_tol=0.05) for a, b in zip(got.get("logprobs", []), wanted["logprobs"])]
    report(len(near) == 3 and all(near), "probabilities of choices are near", (got, wanted))


def check_many(elsewhere):
    requests = [elsewhere.generate(prompt="Hello.", stream=i % 2 == 0) for i in range(64)]
    ends = [elsewhere.wait(r, 120) for r in requests]
    report(all(e.get("finish") == "stop" for e in ends), "64 requests at the same time", ends[0])
    report(any(e.get("cached", 0) > 0 for e in ends), "some of which find their beginning cached")


def check_cancel(elsewhere):
    request = elsewhere.generate(prompt="Tell me everything.", stream=True, temperature=100.0, budget=0, max_tokens=20000)
    elsewhere.until(lambda: any(kind == DELTA for kind, _ in elsewhere.events[request]))
    elsewhere.send(CANCEL, request)
    report(elsewhere.wait(request).get("status") == "cancelled", "a cancel")


def check_death(elsewhere, server):
    requests = [elsewhere.generate(prompt="Tell me everything.", temperature=100.0, budget=0, max_tokens=300) for _ in range(16)]
    elsewhere.pump(0.3)
    server.kill()
    start = time.monotonic()
    server.start()
    away = time.monotonic() - start
    ends = [elsewhere.wait(r, 120) for r in requests]
    # on a busy machine it may be away for longer than requests wait
    report(all("finish" in e or (away > PATIENCE and e.get("status") == "unavailable") for e in ends),
           "requests of which nothing was shown outlive the server", (away, ends[0]))


here = Engine(ENGINE, "serve", "--model", MODEL, "--device", "cpu", "--threads", "1", stderr=subprocess.DEVNULL)
here.start()
server = Server(ROOT, "m1-nano.gguf")
try:
    elsewhere = Engine(ENGINE, "proxy", "--model", MODEL, "--url", server.url, stderr=subprocess.DEVNULL)
    greeting = elsewhere.start()
    report("llama.cpp" in greeting.get("device", ""), "the server is known for what it is", greeting)
    check_golden(elsewhere, here)
    for name, request in CASES.items():
        same(elsewhere.run(**request), here.run(**request), name)
    check_scores(elsewhere, here)
    check_many(elsewhere)
    check_cancel(elsewhere)
    check_death(elsewhere, server)
    elsewhere.stop()
finally:
    server.kill()
here.stop()
print("done")
