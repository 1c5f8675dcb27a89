#!/usr/bin/env python3
"""SQL over a real llama-server: the examples of README and docs, many clients, streams, cancels, budgets, and jobs while the
server is killed.

sql.py ROOT ...: the server is in the folder ROOT, with its model /root/m1-nano.gguf; the environment (PGHOST, ...) names a
server of PostgreSQL whose model is models/m1-nano. See run.sh. Standard library only.
"""
import re
import sys
import time
from pathlib import Path

import check
from llama import Database, Server, report

CLIENTS = 64
JOBS = 60
QUESTION = "What is 47 + 35?"
STREAMED = "SELECT string_agg(delta, '' ORDER BY seq) FROM minimax_m1.generate_stream('{}') WHERE channel = 'content'"
# A model that draws any token goes on and on.
LONG = "SET minimax_m1.temperature = 100; SET minimax_m1.top_p = 1"
ENDLESS = "'Tell me everything.', thinking_budget => 0, max_tokens => 30000"

# Examples that a server elsewhere answers otherwise, by a part of their SQL that no other example of the file has, and why.
SKIPPED = {
    ("README.md", "minimax_m1.train('letter_topic'"): "servers elsewhere do not train",
    ("docs/conversations.md", "logprobs =>"): "servers elsewhere are not asked for the probabilities of written tokens",
    ("docs/functions.md", "minimax_m1.logits("): "servers elsewhere do not tell logits",
    ("docs/functions.md", "engine_restarts"): "the engine was started anew when the url was set",
    ("docs/cost.md", "cache_hits"): "which prompts are cached is the server's to choose: the first is, too",
    ("docs/learning.md", "minimax_m1.train("): "servers elsewhere do not train",
    ("docs/learning.md", "minimax_m1.rollout"): "so there is no training whose answers could be looked at",
    ("docs/memory.md", "cached"): "which prompts are cached is the server's to choose",
}

db = Database()
server = None


# ---- examples ----

def reason_to_skip(path, sql):
    found = [why for (file, part), why in SKIPPED.items() if file == str(path) and part in sql]
    return found[0] if found else None


def check_examples():
    used = 0
    for path in [Path("README.md"), *sorted(Path("docs").glob("*.md"))]:
        if not list(check.examples(path)):
            continue
        database = check.make_database(path)
        for name, sql, want in check.examples(path):
            got, why = check.run(database, sql), reason_to_skip(path, sql)
            used += why is not None
            if why:
                print(f"skip {name}: {why}", flush=True)
                report(got != want, f"{name} is skipped for a reason that is still there")
                continue
            report(got == want, name)
            if got != want:
                print(f"# expected:\n{want}# got:\n{got}")
    report(used == len(SKIPPED), "each example that is skipped is there", f"{used} of {len(SKIPPED)}")


# ---- requests ----

def state_of(errors):
    found = re.search(r"ERROR:  ([0-9A-Z]{5}):", errors)
    return found[1] if found else errors or "none"


def check_clients():
    wanted = db.value(f"SELECT minimax_m1.generate('{QUESTION}')")
    asks = [f"SELECT minimax_m1.generate('{QUESTION}')", STREAMED.format(QUESTION)]
    clients = [db.start(asks[i % 2]) for i in range(CLIENTS)]
    got = [client.communicate(timeout=300) for client in clients]
    wrong = [pair for pair in got if pair[0].strip() != wanted]
    report(not wrong, f"{CLIENTS} clients at once, half of them with streams, get the same answer", wrong[:1])


def check_budget():
    rows = db.value(f"SELECT reasoning_tokens, finish_reason, content <> '' FROM minimax_m1.complete('{QUESTION}', thinking_budget => 5)")
    report(rows == "5|thinking_budget|t", "a budget of reasoning", rows)
    rows = db.value(f"SELECT reasoning_tokens, coalesce(reasoning, '') FROM minimax_m1.complete('{QUESTION}', thinking_budget => 0)")
    report(rows.split("|")[1] == "", "no reasoning", rows)


def check_cancels():
    out, errors = db.run(f"{LONG}; SET statement_timeout = '1s'; SELECT minimax_m1.generate({ENDLESS}) FROM generate_series(1, 100)")
    report(state_of(errors) == "57014", "statement_timeout ends a request", (out[:100], errors))
    asking = [db.start(LONG, f"SELECT count(*) FROM minimax_m1.generate_stream({ENDLESS})") for _ in range(16)]
    db.until("SELECT count(*) >= 8 FROM minimax_m1.activity WHERE state = 'decode'")
    db.value("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%generate_stream%' AND pid <> pg_backend_pid()")
    errors = [client.communicate(timeout=60)[1] for client in asking]
    states = [state_of(error) for error in errors]
    # a reply may have ended by itself
    report(set(states) <= {"57014", "none"} and states.count("57014") >= 4, "so does pg_cancel_backend, of 16 streams at once",
           [error for error, state in zip(errors, states) if state not in ("57014", "none")] or states)
    end = time.monotonic() + 60
    while not server.is_idle() and time.monotonic() < end:
        time.sleep(0.1)
    report(server.is_idle(), "and the server stops computing them")
    report(db.value("SELECT count(*) FROM minimax_m1.activity") == "0", "nothing is left behind")


# ---- a server that is killed ----

def submit(first, last):
    db.value(f"SELECT count(minimax_m1.submit('What is ' || n || ' + 35?')) FROM generate_series({first}, {last}) n")


def check_death():
    """Jobs and streams under which the server dies twice, and comes back."""
    submit(1, JOBS // 2)
    streams = [db.start(STREAMED.format("Who are you?")) for _ in range(16)]
    waiting = []
    # away for less than a request waits, and for longer
    for first, last, away in ((JOBS // 2 + 1, JOBS * 3 // 4, 3), (JOBS * 3 // 4 + 1, JOBS, 15)):
        db.until("SELECT count(*) >= 5 FROM minimax_m1.jobs WHERE state = 'done'")
        server.kill()
        submit(first, last)
        time.sleep(away)
        waiting.append(int(db.value("SELECT count(*) FROM minimax_m1.jobs WHERE state <> 'done'")))
        server.start()
    ends = [client.communicate(timeout=180) for client in streams]
    # when they are, the server has been found again
    db.until(f"SELECT count(*) = {JOBS} FROM minimax_m1.jobs WHERE state = 'done'")
    whole = db.value("SELECT minimax_m1.generate('Who are you?')")
    odd = [e for e in ends if not (e[0].strip() == whole and not e[1] or state_of(e[1]) == "57P03")]
    report(not odd, "streams under which the server dies are whole, or fail retryably", odd[:1])
    row = db.value("SELECT count(*), count(DISTINCT id), count(DISTINCT prompt), count(content) FROM minimax_m1.jobs")
    report(row == f"{JOBS}|{JOBS}|{JOBS}|{JOBS}", "jobs lose nothing and double nothing", row)
    report(min(waiting) >= JOBS // 4, "although the server was away for them", waiting)


def check_nobody():
    server.kill()
    start = time.monotonic()
    _, errors = db.run("SELECT minimax_m1.generate('Hello.')")
    report(state_of(errors) == "57P03" and time.monotonic() - start < 60, "without a server, requests fail retryably and soon", errors)


def check_same():
    """What the engine on this machine says to the jobs' prompts."""
    db.use("")
    differ = db.value("SELECT count(*) FROM minimax_m1.jobs WHERE content IS DISTINCT FROM minimax_m1.generate(prompt)")
    report(differ == "0", "all jobs have the answers that the engine here gives", differ)


def main():
    global server
    server = Server(sys.argv[1], "m1-nano.gguf")
    try:
        db.use(server.url, temperature=0, job_retry_delay="500ms")
        check_examples()
        check_clients()
        check_budget()
        check_cancels()
        check_death()
        check_nobody()
    finally:
        server.kill()
    check_same()
    print("done")


main()
