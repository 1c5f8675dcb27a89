#!/usr/bin/env python3
"""The proxy before servers that misbehave, are away, come up late or as something else, and what it says of urls, keys and
certificates.

faults.py ENGINE: prints a line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only, and
openssl for a certificate.
"""
import json
import math
import os
import shutil
import socket
import subprocess
import tempfile
import time

from mock import SPELLINGS
from testing import DIALECTS, LABELS, REASONED, is_equal, mock, proxy, report, words
from wire import CANCEL, DELTA


def check_faults(name):
    server = mock(name, REASONED)
    engine = proxy(server, options=["--server-timeout", "2"])
    for fault in ("429", "503", "500", "reset", "half", "slow", "nonsense", "error", "error text", "base_resp", "404",
                  "unknown") + (("silent", "401", "403", "408") if name == "vllm" else ()):
        server.faults = [fault]
        end = engine.run(prompt="Hello.")
        is_equal(end.get("reasoning"), "A na\u00efve greeting.", f"{name}: {fault} once is made good")
    for spelling in ("broken end", *SPELLINGS):
        asked = len(server.requests)
        server.faults = [spelling]
        end = engine.run(prompt="Hello.")
        is_equal((end.get("reasoning"), len(server.requests) - asked), ("A na\u00efve greeting.", 1), f"{name}: {spelling} are understood")
    server.faults = ["half"]
    server.pause = 0.01
    end = engine.run(prompt="Hello.", stream=True)
    is_equal(end.get("status"), "unavailable", f"{name}: half a reply that was shown fails, retryably")
    server.pause = 0
    for fault in ("400", "detail") + (("endless",) if name == "vllm" else ()):
        server.faults = [fault]
        end = engine.run(prompt="Hello.")
        report(end.get("status") == "unsupported" and "the test says so" in end["detail"], f"{name}: {fault}, a refusal, is told", end)
    if name == "vllm":
        server.faults = ["500"] * 20
        end = engine.run(prompt="Hello.")
        report(end.get("status") == "unavailable" and "the test says so" in end["detail"], f"{name}: a server that always fails", end)
        pauses = [b - a for a, b in zip(server.times[-7:], server.times[-6:])]
        report(len(pauses) == 6 and pauses[5] > 1 > pauses[0], f"{name}: is asked again later and later", pauses)
        server.faults = []
        is_equal(engine.run(prompt="Hello.").get("finish"), "stop", f"{name}: and later does not")
    engine.stop()
    server.stop()


def check_redirect():
    server, other = mock("vllm", "yes"), mock("vllm", "yes")
    server.elsewhere = other.url
    engine = proxy(server)
    server.faults = ["redirect"]
    end = engine.run(prompt="Hello.")
    report(end.get("status") == "unsupported" and "307" in end["message"] and not other.requests, "redirects are not followed", end)
    engine.stop()
    server.stop()
    other.stop()


def check_retry_after():
    server = mock("vllm", "yes")
    engine = proxy(server)
    for fault in ("429", "503"):
        server.faults = [fault]
        engine.run(prompt="Hello.", budget=0)
        waited = server.times[-1] - server.times[-2]
        report(0.95 < waited < 5, f"after {fault}, a server is left alone as long as it says", waited)
    engine.stop()
    server.stop()


def check_refusals():
    """A server that always refuses, or answers as another model does, though it says that it is what it was: requests fail,
    but not for good."""
    servers = {"404": "HTTP status 404", "401": "{engine_api_key_file}", "unknown": "which the model's tokenizer does not have"}
    all_of = []
    for fault, why in servers.items():
        server = mock("vllm", "yes")
        engine = proxy(server)
        server.faults = [fault] * 100
        all_of.append((fault, why, server, engine, engine.generate(prompt="Hello.", budget=0)))
    for fault, why, server, engine, request in all_of:
        end = engine.wait(request)
        report(end.get("status") == "unavailable" and why in json.dumps(end), f"{fault} again and again fails, retryably", end)
        report(len(server.requests) < 10, "and is not asked for too often", len(server.requests))
        server.faults = []
        is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "and later does not")
        log = engine.stop()
        report(fault in log or why in log, "the log says why", log)
        server.stop()


def check_busy():
    server = mock("vllm", "yes")
    engine = proxy(server, options=["--server-timeout", "2"])
    server.faults = ["429"] * 100
    end = engine.run(prompt="Hello.", budget=0)
    report(end.get("status") == "unavailable" and "too busy" in end["message"] and ": busy" in end["detail"], "a server that stays busy is not waited for without end", end)
    server.faults = ["429"]
    is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "and answers when it is not")
    log = engine.stop()
    is_equal(log.count("is too busy"), 1, "which is logged once")
    server.stop()


def check_hostile_scores():
    for dialect, key in (("vllm", "prompt_logprobs"), ("llama.cpp", "logit_bias")):
        server = mock(dialect, "positive", answers=[""])
        engine = proxy(server)
        server.faults = ["stream"] * 100
        end = engine.run(prompt="Hello.", kind="choices", form=LABELS, score=True, budget=0)
        report(end.get("status") == "unavailable" and len(server.requests) < 20, f"{dialect}: a stream in place of probabilities", (end, len(server.requests)))
        server.faults, server.answers = [], ["positive"]
        for value in (-math.inf, math.nan, 1.0):
            server.logprob = lambda i: value
            asked = len(server.requests)
            end = engine.run(prompt="Hello.", kind="choices", form=LABELS, score=True, budget=0)
            report(end.get("status") == "unavailable" and len(server.requests) - asked < 20 and key in server.requests[-1],
                   f"{dialect}: a probability whose logarithm is {value}", end)
        engine.stop()
        server.stop()


def check_back_off():
    """Whoever listens where the server was counts how often it is tried, in a time in which nobody waits for it, and after."""
    server = mock("vllm", "yes")
    engine = proxy(server)
    port = server.port
    server.stop()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.1)
        tries = []

        def listen(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                engine.pump(0)
                try:
                    listener.accept()[0].close()
                    tries.append(time.monotonic())
                except TimeoutError:
                    pass

        request = engine.generate(prompt="Hello.", budget=0)
        listen(1)
        engine.send(CANCEL, request)
        listen(14)
        pauses = [b - a for a, b in zip(tries, tries[1:])]
        report(3 <= len(tries) <= 6 and pauses == sorted(pauses), "a server that is down is tried less and less often", pauses)
        before = len(tries)
        engine.generate(prompt="Hello.", budget=0)
        asked = time.monotonic()
        listen(8)
    waits = [b - a for a, b in zip([asked] + tries[before:], tries[before:])]
    report(3 <= len(waits) and max(waits) < 4, "and every two seconds while somebody waits for it", waits)
    log = engine.stop()
    is_equal(log.count("is down"), 1, "and the log says it once")


def check_silence():
    """One request that gets nothing holds up no other."""
    server = mock("vllm", "yes")
    engine = proxy(server)
    server.faults = ["silent"]
    silent = engine.generate(prompt="Hello.", budget=0)
    engine.until(lambda: server.requests)
    end = engine.run(prompt="Hello.", budget=0, seconds=20)
    report(end.get("content") == "yes" and engine.end_of(silent) is None, "a silent request holds up no other", end)
    engine.send(CANCEL, silent)
    is_equal(engine.wait(silent, 5)["status"], "cancelled", "and can be cancelled at once")
    server.faults = ["lingers"] * 2
    start = time.monotonic()
    is_equal([engine.run(prompt="Hello.", budget=0, seconds=10).get("content") for _ in range(2)], ["yes"] * 2,
             "a reply is whole at its last event")
    report(time.monotonic() - start < 8, "though its connection stays open", time.monotonic() - start)
    engine.stop()
    server.stop()


def check_move():
    """What was not shown goes on at another server behind its last token."""
    a, b = mock("vllm", REASONED), mock("sglang", REASONED)
    engine = proxy(a, b)
    a.faults, b.faults = ["half"], ["half"]
    end = engine.run(prompt="Hello.")
    is_equal((end.get("reasoning"), end.get("content")), ("A na\u00efve greeting.", "Hello, \u20ac10 \u2014 how are you?"),
             "half a reply is finished by another server")
    lengths = sorted(len(r.get("prompt", r.get("input_ids"))) for r in a.requests + b.requests)
    report(len(lengths) >= 2 and lengths[0] < lengths[1] and a.requests and b.requests, "which begins where it broke off", lengths)
    engine.stop()
    a.stop()
    b.stop()


def check_failing():
    """What one server always fails at is answered by another, at once, and neither is given up."""
    a, b = mock("vllm", REASONED), mock("vllm", REASONED)
    for fault in ("500", "nonsense", "breaks", "base_resp", "429", "503"):
        a.faults = [fault] * 100
        engine = proxy(a, b)
        start = time.monotonic()
        ends = [engine.run(prompt="Hello.", kind="regex", form="[^~]*").get("finish") for _ in range(4)]
        report(ends == ["stop"] * 4 and time.monotonic() - start < 4, f"where one server answers {fault}, another does the work", ends)
        log = engine.stop()
        report("is down" not in log, "and that one is not given up", log)
    a.stop()
    b.stop()


def check_failover():
    a, b = mock("vllm", REASONED), mock("llama.cpp", REASONED)
    engine = proxy(a, b)
    for _ in range(10):
        engine.run(prompt="Hello.")
    report(len(a.requests) == 5 and len(b.requests) == 5, "two urls share the work", (len(a.requests), len(b.requests)))
    a.stop()
    ends = [engine.run(prompt="Hello.").get("finish") for _ in range(4)]
    is_equal(ends, ["stop"] * 4, "one that is gone is done without")
    engine.stop()
    b.stop()


def check_death_under_load():
    a = mock("vllm", "word " * 300, pause=0.01)
    engine = proxy(a)
    requests = [engine.generate(prompt="Hello.", stream=i % 2 == 0, budget=0) for i in range(64)]
    engine.until(lambda: all(any(kind == DELTA for kind, _ in engine.events[r]) for r in requests[::2]))
    port = a.port
    a.stop()
    b = mock("vllm", "word " * 300, port=port)
    ends = [engine.wait(r) for r in requests]
    shown = [e.get("status") for e in ends[::2]]
    is_equal(shown, ["unavailable"] * 32, "of 64 streams under which the server dies, those that were shown fail")
    is_equal([e.get("content") for e in ends[1::2]], ["word " * 300] * 32, "and the others are answered by the next one")
    engine.stop()
    b.stop()


def check_looks():
    """What a server that is up says when it is looked at again, ten seconds later."""
    busy, slow = mock("vllm", "yes"), mock("vllm", "yes")
    plain = mock("vllm", "yes", adapters=[f"a{i}" for i in range(70)])
    plain.refusals["/tokenize"] = 404
    engines = [proxy(server) for server in (busy, slow, plain)]
    bare = mock("vllm", "yes", adapters=["poet"])
    bare.retry_after = 6  # so that it is asked before it is given up, and after the look
    bare.faults = ["429"] * 2
    last = proxy(bare)
    poem = last.generate(prompt="Hello.", adapter="poet")
    last.until(lambda: bare.requests)
    bare.adapters = []
    busy.refusals["/v1/models"] = 503
    slow.slow_questions = 2.0
    until = time.monotonic() + 20
    while min(server.asked for server in (busy, slow, plain)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    slow.faults = ["reset"]
    is_equal([e.run(prompt="Hello.", budget=0, seconds=20).get("content") for e in engines], ["yes"] * 3, "all go on to answer")
    while not slow.left_questions and time.monotonic() < until + 5:
        time.sleep(0.05)
    is_equal(slow.left_questions, 1, "what a server was asked is left when it goes down meanwhile")
    logs = [e.stop() for e in engines]
    report("is down" not in logs[0], "one that is too busy to be looked at stays up", logs[0])
    for line in ("could not be compared", "more adapters"):
        is_equal(logs[2].count(line), 1, f"once is said: {line}")
    is_equal(last.wait(poem).get("status"), "unavailable", "one that has lost an adapter is not asked for it, though it was before")
    last.stop()
    for server in (busy, slow, plain, bare):
        server.stop()


def wait_device(engine, *parts):
    try:
        return engine.until(lambda: all(part in engine.ready["device"] for part in parts), 30)
    except TimeoutError:
        return False


def check_late():
    """A server that is down at the start is looked at like the others when it comes up."""
    first = mock("vllm", "yes")
    late = mock("vllm", "yes")
    port = late.port
    late.stop()
    engine = proxy(first, late.url)
    report("vLLM 0.11.0, 1 of 2 servers" in engine.greeting["device"], "one of two is up", engine.greeting)
    for dialect, more, why in (("openai", {}, "takes texts only"), ("vllm", {"context": 2048}, "a context of 2048 tokens, and requests may have"),
                               ("vllm", {"tokenizes": lambda text: [1]}, "another tokenizer")):
        late = mock(dialect, "wrong", port=port, **more)
        until = time.monotonic() + 30
        while not late.asked and time.monotonic() < until:
            time.sleep(0.05)
        ends = [engine.run(prompt="Hello.", budget=0).get("content") for _ in range(6)]
        is_equal((ends, len(late.requests)), (["yes"] * 6, 0), f"one that comes up late and has {why} is not asked")
        late.stop()
    is_equal(engine.run(prompt="Hello.", adapter="poet").get("status"), "not_found", "an adapter that no server has yet")
    late = mock("vllm", "yes", port=port, version="0.11.1", adapters=["poet"])
    report(wait_device(engine, "2 of 2 servers"), "one that is fit is up, and the view of the model tells", engine.ready)
    is_equal(engine.run(prompt="Hello.", adapter="poet", budget=0).get("content"), "yes", "and its adapters can be named")
    first.stop()
    ends = [engine.run(prompt="Hello.", budget=0).get("content") for _ in range(2)]
    report(ends == ["yes"] * 2 and wait_device(engine, late.url, "0.11.1, 1 of 2 servers"), "and which one is left", engine.ready)
    late.stop()
    log = engine.stop()
    report(all(why in log for why in ("takes texts only", "a context of 2048 tokens", "another tokenizer")), "the log says why not", log)


def check_return_of_another():
    a = mock("vllm", "yes")
    engine = proxy(a)
    port = a.port
    a.stop()
    b = mock("vllm", "yes", port=port, tokenizes=lambda text: [1, 2, 3])
    end, until = {}, time.monotonic() + 40
    while end.get("status") != "unavailable" and time.monotonic() < until:
        end = engine.run(prompt="Hello.", budget=0)
    report(end.get("status") == "unavailable" and "tokenizer" in end["message"],
           "another model behind the same url is noticed", end)
    engine.stop()
    b.stop()


def refused_at_start(name, status, word, *servers, options=()):
    engine = proxy(*servers, options=options)
    said = json.dumps(engine.greeting)
    report(engine.greeting.get("status") == status and word in said, name, said)
    engine.stop()


def check_start(folder):
    server = mock("vllm", "yes", tokenizes=lambda text: [1, 2, 3])
    refused_at_start("another tokenizer is refused", "invalid_argument", "another tokenizer", server)
    server.stop()
    server = mock("llama.cpp", "yes")
    server.vocab += 1
    refused_at_start("another vocabulary is refused", "invalid_argument", "another vocabulary", server)
    server.stop()
    refused_at_start("nobody there", "unavailable", "connect", "http://127.0.0.1:1")
    refused_at_start("a name that nobody has", "unavailable", "resolve", "http://no-such-host.invalid")
    for url in ("ftp://somewhere", "http://", "https://:8000", "http://a b", "http://somewhere:port", "http://here?to=there",
                "http://here#there", "http://" + "a" * 600):
        refused_at_start(f"what is no url, {url[:30]}", "invalid_argument", "no url", url)
    for url in ("http://me:secret@127.0.0.1:1", "http://secret@127.0.0.1:1"):
        engine = proxy(url)
        said = json.dumps(engine.greeting)
        report("no user" in said and "secret" not in said + engine.stop(), f"a url with a user, {url}, is not shown", said)
    server = mock("vllm", "yes", name="m" * 501)
    refused_at_start("a model whose name is too long", "unsupported", "too long", server)
    server.name = "/models/\u00e4 \"b\"\\" + "m" * 400
    engine = proxy(server)
    engine.run(prompt="Hello.", budget=0)
    is_equal(server.requests[-1]["model"], server.name, "a long and odd name is told as it is")
    engine.stop()
    server.stop()
    server = mock("vllm", "yes", key="secret")
    refused_at_start("no key", "unavailable", "{engine_api_key_file}", server)
    key = os.path.join(folder, "key")
    os.mkfifo(key)
    refused_at_start("a key that is a pipe", "invalid_argument", "is not a file", server, options=["--api-key-file", key])
    os.unlink(key)
    for text, fits in (("wrong", False), ("  secret\n", True)):
        with open(key, "w", encoding="utf-8") as f:
            f.write(text)
        engine = proxy(server, options=["--api-key-file", key])
        is_equal("status" not in engine.greeting, fits, f"the key {text.strip()}")
        if fits:
            is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "and it is sent with requests")
            server.key = "another"
            with open(key, "w", encoding="utf-8") as f:
                f.write("another\n")
            is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "a new one is read when the server wants it")
        engine.stop()
    server.stop()
    server = mock("vllm", "yes")
    refused_at_start("a model that the server does not have", "not_found", "of that name", server,
                     options=["--served-model", "nope"])
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"models/m1-nano/{name}", folder)
    server.context = 4096
    engine = proxy(server, model=folder)
    is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "config and tokenizer are all that is needed here")
    is_equal(engine.greeting["context"], 4096, "the context is the server's")
    engine.stop()
    engine = proxy(server, options=["--served-model", "the-model", "--dialect", "vllm"])
    report("vLLM 0.11.0" in engine.greeting.get("device", "") and server.url in engine.greeting["device"],
           "the greeting says url, server and version", engine.greeting)
    engine.stop()
    server.stop()


def check_certificates(folder):
    if shutil.which("openssl") is None:
        print("skip certificates: openssl is missing", flush=True)
        return
    pair = [os.path.join(folder, name) for name in ("cert.pem", "key.pem")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", pair[1], "-out", pair[0], "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=IP:127.0.0.1"], capture_output=True, check=True)
    server = mock("vllm", "yes", certificate=pair)
    refused_at_start("a certificate that nobody signed", "unavailable", "certificate", server)
    engine = proxy(server, options=["--ca-file", pair[0]])
    is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "one that is signed by the CA of the settings")
    engine.stop()
    refused_at_start("one of another host", "unavailable", "", server.url.replace("127.0.0.1", "localhost"),
                     options=["--ca-file", pair[0]])
    server.stop()


with tempfile.TemporaryDirectory() as scratch:
    for dialect in DIALECTS:
        check_faults(dialect)
    check_redirect()
    check_retry_after()
    check_refusals()
    check_busy()
    check_hostile_scores()
    check_back_off()
    check_silence()
    check_move()
    check_failing()
    check_failover()
    check_death_under_load()
    check_looks()
    check_late()
    check_return_of_another()
    check_start(scratch)
    check_certificates(scratch)
words.engine.stop()
print("done")
