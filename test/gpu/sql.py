#!/usr/bin/env python3
"""Greedy cases of the bundled model through SQL, on the server that the environment (PGHOST, ...) names.

sql.py DEVICE: the model must run on it. Prints "ok NAME" and "not ok NAME" lines, and ends with 1 if any is not ok.
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
from golden import expected

FAILED = []


def report(good, name, why=""):
    print(f"{'ok' if good else 'not ok'} {name}" + ("" if good else f"\n# {why}"), flush=True)
    if not good:
        FAILED.append(name)


def query(sql, **variables):
    """One value. Variables are psql's, so that no quoting is done here."""
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
    for name, value in variables.items():
        command += ["-v", f"{name}={value}"]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=300)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def check_case(number, case):
    tools = ":'tools'::jsonb" if case["tools"] else "NULL"
    got = query("SELECT row_to_json(c) FROM minimax_m1.complete(:'user_prompt', system_prompt => :'system', "
                f"tools => {tools}) c", user_prompt=case["user"], system=case["system"],
                tools=json.dumps(case["tools"]))
    name = f"greedy case {number} ({case['task']})"
    try:
        row = json.loads(got)
    except ValueError:
        return report(False, name, got)
    want = expected(case)
    wrong = [f"{key} is {row[key]!r}, not {want[key]!r}"
             for key in ("content", "reasoning", "tool_calls", "prompt_tokens", "completion_tokens")
             if (row[key] or "") != (want[key] or "")]
    report(not wrong, name, "; ".join(wrong))


def main():
    device = query("SELECT device FROM minimax_m1.model")
    report(device.startswith(sys.argv[1]), f"the model is on {sys.argv[1]}", device)
    with open("models/m1-nano/greedy_cases.json") as f:
        for number, case in enumerate(json.load(f)):
            check_case(number, case)
    refund = query("SELECT minimax_m1.score('the customer wants a refund', 'Hello, The coffee machine I bought leaks "
                   "water. I would like a refund. Regards, Omar') > 0.5")
    report(refund == "t", "a score", refund)
    sys.exit(1 if FAILED else 0)


main()
