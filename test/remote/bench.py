#!/usr/bin/env python3
"""Rows a second and latency through SQL: over a llama-server beside the engine here, on the same file with as many threads.

bench.py ROOT FILE: as sql.py, and FILE is the model for the engine. The two take turns, and the median of three rounds counts; timings on a busy machine mean little,
compare the ratios of one run. Prints one table. Standard library only.
"""
import os
import statistics
import sys
import time

from llama import Database, Server

CLIENTS = (1, 4, 16)
ROWS = 20  # of each client
ROUNDS = 3
TEXT = ("To whom it may concern, My air fryer was delivered to the wrong address. My order number is D-77904. I would like a "
        "refund. Best wishes, Keiko")

db = Database()


def rows_per_second(clients):
    start = time.monotonic()
    running = [db.start(f"SELECT count(minimax_m1.summarize(body)) FROM message, generate_series(1, {ROWS})") for _ in range(clients)]
    for client in running:
        out, errors = client.communicate(timeout=600)
        if out.strip() != str(ROWS):
            raise RuntimeError(errors)
    return clients * ROWS / (time.monotonic() - start)


def latencies():
    """Milliseconds to the first token, and of the whole reply, of one request at a time: median of rows, by the server."""
    out = db.value(f"""SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY queue_ms + prefill_ms),
        percentile_cont(0.5) WITHIN GROUP (ORDER BY queue_ms + prefill_ms + decode_ms)
        FROM generate_series(1, {ROWS}) n, LATERAL minimax_m1.complete('What is ' || n || ' + 35?')""")
    return [float(x) for x in out.split("|")]


def measure():
    db.value("SELECT minimax_m1.summarize(body) FROM message")
    first, whole = latencies()
    return {"first token, ms": first, "reply, ms": whole} | {f"rows/s, {n} clients": rows_per_second(n) for n in CLIENTS}


def main():
    server = Server(sys.argv[1], "m1-nano.gguf", threads=os.cpu_count(), slots=16)
    file = os.path.abspath(sys.argv[2])
    db.value(f"CREATE TABLE message AS SELECT '{TEXT}' AS body")
    rounds = {"llama-server": [], "the engine": []}
    try:
        for _ in range(ROUNDS):
            db.use(server.url, model=file, temperature=0)
            rounds["llama-server"].append(measure())
            db.use("", model=file)
            rounds["the engine"].append(measure())
    finally:
        server.kill()
    print(f"{'':24}{'llama-server':>14}{'the engine':>12}{'ratio':>8}")
    for name in rounds["the engine"][0]:
        there, here = (statistics.median(r[name] for r in rounds[who]) for who in rounds)
        print(f"{name:24}{there:14.1f}{here:12.1f}{here / there:8.2f}")


main()
