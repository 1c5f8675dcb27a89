#!/usr/bin/env python3
"""What the gateway adds to a request and to a long stream, measured beside libpq.

gateway.py CONNINFO PORT PID RESULT PAIRS STREAMS: each pair asks for the same through the gateway and through libpq, the two
taking turns at being first, on connections that stay open. A request is POST /tokenize; a stream is a chat whose pieces
are all read, and the rows of complete_stream, of as many tokens. Differences and ratios are of pairs, so that what else
the machine does meets both; what the gateway's process computes is told as well, by which other work is left out.
Standard library only; libpq through ctypes.
"""
import ctypes
import ctypes.util
import json
import os
import socket
import statistics
import sys
import time

PROMPT = "What can you do?"
TOKENS = 1000
# Tokens at such a temperature are no words, and go on for as long as they may.
CHAT = {"max_tokens": TOKENS, "thinking_budget": -1, "temperature": 100, "top_p": 1, "seed": 7}
STREAM_SQL = ("SELECT (s).channel, (s).delta, (s).completion_tokens FROM (SELECT minimax_m1.complete_stream($1, max_tokens => 1000, "
              "thinking_budget => -1, temperature => 100, top_p => 1, seed => 7) AS s OFFSET 0) t")
TOKENIZE_SQL = "SELECT minimax_m1.tokenize($1)"


class Database:
    """A connection of libpq."""

    def __init__(self, conninfo):
        pq = self.pq = ctypes.CDLL(ctypes.util.find_library("pq") or "libpq.so.5")
        for name in ("PQconnectdb", "PQgetResult"):
            getattr(pq, name).restype = ctypes.c_void_p
        pq.PQgetvalue.restype = ctypes.c_char_p
        pq.PQerrorMessage.restype = ctypes.c_char_p
        self.connection = ctypes.c_void_p(pq.PQconnectdb(conninfo.encode()))
        if pq.PQstatus(self.connection) != 0:
            sys.exit(pq.PQerrorMessage(self.connection).decode())

    def run(self, sql, value, by_row=False):
        """The values of the row with the end, and how many rows there were."""
        pq = self.pq
        values = (ctypes.c_char_p * 1)(value.encode())
        if not pq.PQsendQueryParams(self.connection, sql.encode(), 1, None, values, None, None, 0):
            sys.exit(pq.PQerrorMessage(self.connection).decode())
        if by_row:
            pq.PQsetSingleRowMode(self.connection)
        n, last = 0, None
        while (result := pq.PQgetResult(self.connection)):
            result = ctypes.c_void_p(result)
            status, rows = pq.PQresultStatus(result), pq.PQntuples(result)
            if status not in (2, 9):
                sys.exit(pq.PQerrorMessage(self.connection).decode())
            # of a stream only the row of the end is looked at: this is to cost no more than it has to
            if rows and (not by_row or not pq.PQgetlength(result, 0, 0)):
                last = [pq.PQgetvalue(result, 0, column) for column in range(pq.PQnfields(result))]
            n += rows
            pq.PQclear(result)
        return last, n


class Gateway:
    """A connection of HTTP, each request written at once."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path, data, end):
        """All that comes until it ends so."""
        body = json.dumps(data).encode()
        self.socket.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                            % (path.encode(), len(body), body))
        parts, tail = [], b""
        while not tail.endswith(end):
            part = self.socket.recv(1 << 16)
            if not part:
                sys.exit(f"the gateway closed the connection behind {tail!r}")
            parts.append(part)
            tail = (tail + part)[-64:]
        answer = b"".join(parts)
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(answer.decode())
        return answer


def timed(action):
    start = time.perf_counter()
    result = action()
    return 1000 * (time.perf_counter() - start), result


def in_turns(n, direct, through):
    """Milliseconds of each, pair by pair, and the last results."""
    times = []
    for i in range(n):
        if i % 2:
            b, through_result = timed(through)
            a, direct_result = timed(direct)
        else:
            a, direct_result = timed(direct)
            b, through_result = timed(through)
        times.append((a, b))
    return times, direct_result, through_result


def quartiles(values):
    return [round(q, 4) for q in statistics.quantiles(values, n=4)]


def cpu_ms(pid):
    """What the process has computed so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(pid, n, direct, through):
    in_turns(max(2, n // 10), direct, through)
    before = cpu_ms(pid)
    times, direct_result, through_result = in_turns(n, direct, through)
    return {
        "pairs": n,
        "direct_ms": quartiles([a for a, _ in times]),
        "gateway_ms": quartiles([b for _, b in times]),
        "added_ms": quartiles([b - a for a, b in times]),
        "gateway_cpu_ms": round((cpu_ms(pid) - before) / n, 4),
        "ratio": quartiles([b / a for a, b in times]),
    }, direct_result, through_result


def print_row(what, m):
    print(f"{what:<28} {m['direct_ms'][1]:>10.2f} {m['gateway_ms'][1]:>10.2f} {m['added_ms'][0]:>8.2f} {m['added_ms'][1]:>8.2f} "
          f"{m['added_ms'][2]:>8.2f} {m['ratio'][0]:>7.3f} {m['ratio'][1]:>7.3f} {m['ratio'][2]:>7.3f} {m['gateway_cpu_ms']:>8.2f}")


def main():
    conninfo, port, pid, result, pairs, streams = sys.argv[1:]
    database, gateway = Database(conninfo), Gateway(int(port))
    request, direct, through = measure(pid, int(pairs), lambda: database.run(TOKENIZE_SQL, PROMPT),
                                       lambda: gateway.post("/tokenize", {"prompt": PROMPT}, b"}"))
    ids = direct[0][0].decode().strip("{}").split(",")
    assert json.loads(through.split(b"\r\n\r\n", 1)[1])["tokens"] == [int(i) for i in ids], (direct, through)
    chat = {"messages": [{"role": "user", "content": PROMPT}], "stream": True, "stream_options": {"include_usage": True}, **CHAT}
    stream, direct, through = measure(pid, int(streams), lambda: database.run(STREAM_SQL, PROMPT, by_row=True),
                                      lambda: gateway.post("/v1/chat/completions", chat, b"data: [DONE]\n\n\r\n0\r\n\r\n"))
    tokens = int(direct[0][2])
    assert b'"completion_tokens":%d' % tokens in through, (direct, through[-500:])
    print(f"{'':<28} {'libpq ms':>10} {'gateway ms':>10} {'added ms, quartiles':>26} {'ratio, quartiles':>23} {'its CPU':>8}")
    print_row(f"a request ({pairs} pairs)", request)
    print_row(f"{tokens} tokens ({streams} pairs)", stream)
    print(f"The load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors.")
    with open(result, "w", encoding="utf-8") as f:
        json.dump({"request": request, "stream": {**stream, "tokens": tokens, "rows": direct[1]}, "load": os.getloadavg()}, f, indent=1)


main()
