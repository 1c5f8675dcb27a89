#!/usr/bin/env python3
"""The bundled model through SQL, on the server that the environment (PGHOST, ...) names: greedy cases, a cancel, an
engine that is killed, many clients at once, and what SQL adds to a long reply.

sql.py DEVICE: the model must run on it. Prints "ok NAME" and "not ok NAME" lines, figures after "#", and ends with 1 if
any is not ok.
"""
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
from golden import expected

FAILED = []
CLIENTS = 64
BUNDLED = "models/m1-nano"
REPLY_TOKENS = 400
TURNS = 7
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


# ---- what SQL adds ----

def endless_model(folder):
    """A copy of m1-nano that takes another token for the end of a turn, one that never comes: replies end at max_tokens."""
    model = os.path.join(folder, "endless")
    shutil.copytree(BUNDLED, model)
    path = os.path.join(model, "tokenizer_config.json")
    with open(path) as f:
        text = f.read()
    with open(path, "w") as f:
        f.write(re.sub(r'("eos_token":\s*)"<end_of_sentence>"', r'\1"<end_of_document>"', text))
    subprocess.run(["chmod", "-R", "go+rX", folder], check=True)
    return model


def use_model(path):
    before = query("SELECT engine_pid FROM minimax_m1.model")
    query(f"ALTER SYSTEM SET minimax_m1.model = '{path}'")
    query("SELECT pg_reload_conf()")
    wait_for("another model is ready", "SELECT state || ' ' || engine_pid FROM minimax_m1.model",
             lambda state: state.startswith("ready") and state != f"ready {before}", 60)


def time_reply():
    """Milliseconds that a client waits for a reply, and those that the engine tells of it."""
    done = subprocess.run(["psql", "-XAtq", "-c", "\\timing on", "-c", "SELECT completion_tokens, prefill_ms + decode_ms "
                           f"FROM minimax_m1.complete('What is 47 + 35?', max_tokens => {REPLY_TOKENS})"],
                          capture_output=True, text=True, timeout=300)
    row = re.search(r"^(\d+)\|([\d.e+-]+)$", done.stdout, re.M)
    time_line = re.search(r"^Time: ([\d.]+) ms", done.stdout, re.M)
    if not row or not time_line or int(row[1]) != REPLY_TOKENS:
        raise ValueError(done.stdout.strip() + done.stderr.strip())
    return float(time_line[1]), float(row[2])


def check_added():
    """The method of test/bench/bench.sh. A token of m1-nano takes little: of a larger model's it is a smaller part."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        use_model(endless_model(folder))
        try:
            time_reply()  # the first one touches memory for the first time
            runs = [time_reply() for _ in range(TURNS)]
        except ValueError as error:
            return report(False, "what SQL adds", str(error))
        added = statistics.median(sql - engine for sql, engine in runs)
        whole = statistics.median(sql for sql, _ in runs)
        print(f"# SQL adds {added:.2f} ms to {whole:.1f} ms of {REPLY_TOKENS} tokens, {100 * added / whole:.1f} % (to be at "
              f"most 3), {1e3 * added / REPLY_TOKENS:.1f} microseconds a token")
        report(True, "what SQL adds")


def main():
    device = query("SELECT device FROM minimax_m1.model")
    report(device.startswith(sys.argv[1]), f"the model is on {sys.argv[1]}", device)
    with open(f"{BUNDLED}/greedy_cases.json") as f:
        for number, case in enumerate(json.load(f)):
            check_case(number, case)
    refund = query("SELECT minimax_m1.score('the customer wants a refund', 'Hello, The coffee machine I bought leaks "
                   "water. I would like a refund. Regards, Omar') > 0.5")
    report(refund == "t", "a score", refund)
    check_cancel()
    check_killed_engine()
    check_clients()
    check_added()
    sys.exit(1 if FAILED else 0)


main()
