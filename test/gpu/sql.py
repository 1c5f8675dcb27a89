#!/usr/bin/env python3
"""The bundled model through SQL, on the server that the environment (PGHOST, ...) names: greedy cases, a cancel, an
engine that is killed, and many clients at once.

sql.py DEVICE: the model must run on it. Prints "ok NAME" and "not ok NAME" lines, figures after "#", and ends with 1 if
any is not ok.
"""
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
from golden import expected

FAILED = []
CLIENTS = 64
LONG = "SELECT minimax_m1.generate_ids(ARRAY[1, 2, 3], 2000000)"


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


def wait_for(what, sql, good, seconds):
    """The seconds until a query's value is good; reports when it never is."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if good(query(sql)):
            return time.monotonic() - began
        time.sleep(0.05)
    report(False, what, f"not within {seconds} s")
    return seconds


def start_long_request():
    """A session that generates, once its request is running."""
    session = subprocess.Popen(["psql", "-XAtq", "-v", "VERBOSITY=sqlstate", "-c", LONG], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, env=dict(os.environ, PGAPPNAME="long request"))
    wait_for("a long request runs", "SELECT count(*) FROM minimax_m1.activity WHERE state = 'decode'",
             lambda n: n == "1", 60)
    return session


def check_cancel():
    session = start_long_request()
    began = time.monotonic()
    query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'long request'")
    said = session.communicate(timeout=60)[0]
    took = time.monotonic() - began
    print(f"# a cancel took {took * 1e3:.0f} ms")
    report("57014" in said and took < 1, "a cancel ends a request within a second", said)
    wait_for("nothing runs after a cancel", "SELECT count(*) FROM minimax_m1.activity", lambda n: n == "0", 10)


def check_killed_engine():
    session = start_long_request()
    before = query("SELECT engine_pid FROM minimax_m1.model")
    os.kill(int(before), signal.SIGKILL)
    said = session.communicate(timeout=60)[0]
    took = wait_for("a killed engine comes back", "SELECT state || ' ' || engine_pid FROM minimax_m1.model",
                    lambda state: state.startswith("ready") and state != f"ready {before}", 60)
    print(f"# a killed engine was back after {took:.1f} s")
    report("57P03" in said, "a killed engine fails its request, which may be tried again", said)
    report(took < 20, "a killed engine is back within 20 s", f"{took:.1f} s")


def ask(number):
    """The seconds of one short reply, or what went wrong."""
    began = time.monotonic()
    got = query(f"SELECT completion_tokens FROM minimax_m1.complete('What is {number} plus 2?', max_tokens => 32)")
    return (time.monotonic() - began, int(got)) if got.isdigit() else got


def check_clients():
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        replies = list(pool.map(ask, range(CLIENTS)))
    took = time.monotonic() - began
    wrong = [reply for reply in replies if isinstance(reply, str)]
    report(not wrong, f"{CLIENTS} clients at once", "; ".join(wrong[:3]))
    good = [reply for reply in replies if not isinstance(reply, str)]
    if good:
        print(f"# {CLIENTS} clients: {sum(tokens for _, tokens in good) / took:.0f} tokens a second, a reply after "
              f"{statistics.median(seconds for seconds, _ in good):.2f} s (median)")


def main():
    device = query("SELECT device FROM minimax_m1.model")
    report(device.startswith(sys.argv[1]), f"the model is on {sys.argv[1]}", device)
    with open("models/m1-nano/greedy_cases.json") as f:
        for number, case in enumerate(json.load(f)):
            check_case(number, case)
    refund = query("SELECT minimax_m1.score('the customer wants a refund', 'Hello, The coffee machine I bought leaks "
                   "water. I would like a refund. Regards, Omar') > 0.5")
    report(refund == "t", "a score", refund)
    check_cancel()
    check_killed_engine()
    check_clients()
    sys.exit(1 if FAILED else 0)


main()
