#!/usr/bin/env python3
"""The proxy before servers of every dialect, which also misbehave: what a request gets of them, as the worker sees it.

proxy.py ENGINE: prints a line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only, and
openssl for a certificate.
"""
import json
import math
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time

from mock import SPELLINGS, normalised
from testing import DIALECTS, LABELS, REASONED, SCHEMA, is_equal, mock, proxy, report, words
from wire import CANCEL, DELTA, PAUSE, RESUME

MANY = 300

# ---- what can be asked ----

def check_replies(name):
    server = mock(name, REASONED, cached=7)
    engine = proxy(server)
    tokens = len(words.tokens(REASONED)) + 1
    for stream in (False, True):
        end = engine.run(prompt="Hello.", stream=stream)
        texts = end["streamed"] if stream else [end["content"], end["reasoning"]]
        is_equal(texts, ["Hello, \u20ac10 \u2014 how are you?", "A na\u00efve greeting."],
                 f"{name}: a reply, {'streamed' if stream else 'whole'}")
        is_equal((end["finish"], end["tokens"], end["cached"]), ("stop", tokens, 7), f"{name}: its counts")
    end = engine.run(prompt="Hello.", stops=["how"])
    is_equal((end["content"], end["finish"]), ("Hello, \u20ac10 \u2014 ", "stop"), f"{name}: a stop string")
    end = engine.run(prompt="Hello.", max_tokens=5)
    is_equal((end["tokens"], end["finish"]), (5, "length"), f"{name}: max_tokens")
    server.scripts = ["abc def ghi"]
    end = engine.run(ids=words.tokens("abc"), max_tokens=3)
    is_equal(end["ids"], words.tokens("abc def ghi")[len(words.tokens("abc")):][:3], f"{name}: ids")
    is_equal(engine.run(prompt="Hello.", logprobs=True).get("status"), "unsupported", f"{name}: tokens' own probabilities refused")
    engine.run(prompt="Hello.", owner=0)
    engine.run(prompt="Hello.", owner=5)
    engine.run(prompt="Hello.", owner=6)
    salts = [r.get("cache_salt", r.get("extra_key")) for r in server.requests[-3:]]
    if name == "llama.cpp":
        is_equal(salts, [None] * 3, f"{name}: it cannot keep caches apart")
    else:
        report(salts[0] is None and salts[1] and salts[2] and salts[1] != salts[2] and "5" != salts[1],
               f"{name}: caches are kept apart", salts)
    log = engine.stop()
    report(("apart" in log) == (name == "llama.cpp"), f"{name}: which is logged where it cannot be", log)
    server.stop()


# What does not change the answers of servers that are none, and would change those of real ones.
SENT = {
    "vllm": {"skip_special_tokens": False, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
             "top_k": -1, "logprobs": 0, "return_token_ids": True, "return_tokens_as_token_ids": True},
    "llama.cpp": {"cache_prompt": True, "samplers": ["temperature", "top_k", "top_p"], "timings_per_token": True,
                  "return_progress": True, "top_k": 0},
    "sglang": {"skip_special_tokens": False, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
               "top_k": -1},
}


def check_asked(name):
    server = mock(name, "abc")
    server.own_eos = -1
    engine = proxy(server)
    end = engine.run(prompt="Hello.", budget=0)
    is_equal((end.get("content"), end.get("finish")), ("abc", "stop"), f"{name}: the end of turn is our model's, whatever the server's own is")
    server.own_eos = words.eos
    ids = words.tokens("abc")
    if name != "llama.cpp":
        end = engine.run(ids=ids[:1], max_tokens=len(ids) + 2)
        is_equal(end.get("ids"), ids[1:] + [words.eos] + words.tokens("a") * 2, f"{name}: ids go on behind an end of turn")
    sent = server.requests[0].get("sampling_params", server.requests[0])
    wanted = SENT[name.split()[0]]
    is_equal({key: sent.get(key) for key in wanted}, wanted, f"{name}: what servers would otherwise choose is said")
    engine.stop()
    server.stop()


def check_lost_tokens(name):
    """Wherever a reply ends, inside of a character or not, it has all of its tokens; llama.cpp's streams leave some out."""
    text = "a\u20acb \U0001f600\u4e16"
    ids = words.tokens(text)
    server = mock(name, text)
    engine = proxy(server)
    for n in range(1, len(ids) + 1):
        end = engine.run(prompt="Hello.", budget=0, max_tokens=n)
        wanted = b"".join(words.pieces[i] for i in ids[:n]).decode(errors="replace")
        is_equal((end.get("content"), end.get("tokens"), end.get("finish")), (wanted, n, "length"), f"{name}: {n} tokens of characters")
        is_equal(engine.run(ids=ids[:1], max_tokens=n).get("ids"), (ids + [words.eos])[1:n + 1], f"{name}: {n} ids of characters")
    engine.stop()
    server.stop()


def check_budget(name):
    server = mock(name, "<think>\nThe order was very large and the box was\n</think>\n\nyes", answers=["no"])
    engine = proxy(server)
    end = engine.run(prompt="Hello.", budget=7)  # more than the tokens of the opening tag, which count
    is_equal((end["content"], end["finish"], end["reasoning_tokens"]), ("no", "thinking_budget", 7),
             f"{name}: a budget of reasoning takes two requests")
    is_equal(len(server.requests), 2, f"{name}: and no more")
    end = engine.run(prompt="Hello.", budget=0)
    is_equal((end["content"], end["reasoning"]), ("no", ""), f"{name}: no reasoning")
    engine.stop()
    server.stop()


def check_forms(name):
    server = mock(name, "<think>\nwell\n</think>\n\nI think so", answers=["maybe", "negative"])
    engine = proxy(server)
    for budget in (-1, 0, 2):
        end = engine.run(prompt="Hello.", kind="choices", form=LABELS, budget=budget)
        is_equal(end.get("content"), "negative", f"{name}: one of several choices, budget {budget}")
    server.scripts, server.answers = ["no reasoning here"], ["negative"]
    end = engine.run(prompt="Hello.", kind="choices", form=LABELS)
    is_equal(end.get("content"), "negative", f"{name}: a reply that does not begin with the form begins anew")
    server.answers = ['{"a":1}', '{"a":12, "b":"x \u20ac\\n"}', '{"a":12, "b":"x\u20ac"}']
    end = engine.run(prompt="Hello.", kind="schema", form=SCHEMA)
    report(end.get("content", "").startswith('{"a":12'), f"{name}: JSON of a schema", end)
    server.answers = ["\u00e4\u00f6\u20ac"]
    end = engine.run(prompt="Hello.", kind="regex", form="[\u00e4\u00f6\u20ac]{3}", budget=0)
    is_equal(end.get("content"), "\u00e4\u00f6\u20ac", f"{name}: a regular expression")
    server.faults = ["breaks"]
    end = engine.run(prompt="Hello.", kind="regex", form="[\u00e4\u00f6\u20ac]{3}", budget=0)
    is_equal(end.get("content"), "\u00e4\u00f6\u20ac", f"{name}: a server that breaks it once is asked again")
    server.faults = ["breaks"] * 20
    end = engine.run(prompt="Hello.", kind="regex", form="[\u00e4\u00f6\u20ac]{3}", budget=0)
    report(end.get("status") == "unavailable" and "constraint" in end["message"], f"{name}: and not for ever", end)
    engine.stop()
    server.stop()


def check_characters(name):
    """A form is told from in front of a character, though the server goes wrong, or away, inside of it."""
    is_equal(len(words.tokens("\u4e03")), 3, "a character of three tokens")
    text = "\u4e00\u4e01\u4e02"
    server = mock(name, "\u4e03", answers=[text])
    engine = proxy(server)
    for fault in (None, "half", "reset"):
        server.faults = [None, fault]
        end = engine.run(prompt="Hello.", kind="regex", form=f"[{text}]{{3}}")
        is_equal(end.get("content"), text, f"{name}: a form behind a beginning that it does not allow, and {fault}")
    end = engine.run(prompt="Hello.", kind="regex", form=f"[{text}]{{3}}", max_tokens=4, budget=0)
    is_equal((end.get("content"), end.get("tokens"), end.get("finish")), ("\u4e00\ufffd", 4, "length"), f"{name}: max_tokens inside of a character of it")
    server.answers = [words.spelling + "yes"]
    server.faults = ["special"]
    end = engine.run(prompt="Hello.", kind="regex", form=words.spelling + "yes", budget=0)
    is_equal(end.get("content"), server.answers[0], f"{name}: a control token is not the text that it is written as")
    engine.stop()
    server.stop()


def check_scores(name):
    server = mock(name, "<think>\nwell\n</think>\n\npositive")
    engine = proxy(server)
    wanted = normalised([sum(server.logprob(t) for t in words.tokens(label) + [words.eos])
                         for label in json.loads(LABELS)])
    for budget in (-1, 0):
        end = engine.run(prompt="Hello.", kind="choices", form=LABELS, score=True, budget=budget)
        near = [math.isclose(a, b, abs_tol=1e-6) for a, b in zip(end.get("logprobs", []), wanted)]
        report(len(near) == 3 and all(near), f"{name}: probabilities of choices, budget {budget}", end)
        is_equal(end.get("content"), json.loads(LABELS)[wanted.index(max(wanted))], f"{name}: and the likeliest of them")
    end = engine.run(prompt="Hello.", kind="choices", form='["yes"]', score=True)
    is_equal((end.get("content"), end.get("logprobs")), ("yes", [0.0]), f"{name}: the only choice is certain")
    engine.stop()
    server.stop()


def check_cancel(name):
    server = mock(name, "word " * 150, pause=0.01)
    engine = proxy(server)
    request = engine.generate(prompt="Hello.", stream=True, budget=0)
    engine.until(lambda: any(kind == DELTA for kind, _ in engine.events[request]))
    engine.send(CANCEL, request)
    is_equal(engine.wait(request)["status"], "cancelled", f"{name}: a cancel")
    end = time.monotonic() + 10
    while not server.closed and time.monotonic() < end:
        time.sleep(0.02)
    is_equal(server.closed, 1, f"{name}: closes the connection")
    request = engine.generate(prompt="Hello.", stream=True, budget=0)
    engine.until(lambda: any(kind == DELTA for kind, _ in engine.events[request]))
    engine.send(PAUSE, request)
    engine.pump(0.1)
    while engine.pump(0.05) and engine.events[request].append(None) is None:
        engine.events[request].pop()
        before = len(engine.events[request])
        engine.pump(0.3)
        if len(engine.events[request]) == before:
            break
    engine.pump(0.5)
    is_equal(len(engine.events[request]), before, f"{name}: a stream that is paused stands still")
    engine.send(RESUME, request)
    end = engine.wait(request)
    is_equal(end["streamed"][0], ("word " * 150), f"{name}: and is whole in the end")
    engine.stop()
    server.stop()


def check_openai():
    server = mock("openai", "Hello there.", cached=3)
    engine = proxy(server)
    end = engine.run(prompt="Hello.", system="Be kind.", stream=True)
    is_equal((end["streamed"], end["finish"]), (["Hello there.", ""], "stop"), "openai: a reply")
    is_equal(server.requests[-1]["messages"], [{"role": "system", "content": "Be kind."},
                                               {"role": "user", "content": "Hello."}], "openai: what was asked")
    engine.run(messages='[{"role":"user","content":"one"}]')
    is_equal(server.requests[-1]["messages"], [{"role": "user", "content": "one"}], "openai: messages")
    server.scripts = ['"negative"']
    is_equal(engine.run(prompt="Hello.", kind="choices", form=LABELS).get("content"), "negative", "openai: choices")
    server.scripts = ['{\n  "a": 5,\n  "b": "x"\n}']
    is_equal(json.loads(engine.run(prompt="Hello.", kind="schema", form=SCHEMA).get("content", "{}")),
             {"a": 5, "b": "x"}, "openai: JSON of a schema")
    server.scripts = ['{"a": "five"}']
    is_equal(engine.run(prompt="Hello.", kind="schema", form=SCHEMA).get("status"), "unavailable",
             "openai: what has not the form is no answer")
    for stream in (False, True):
        server.scripts = ["<think>\nwell\n</think>\n\nyes and no"]
        end = engine.run(prompt="Hello.", budget=0, stream=stream)
        texts = end["streamed"] if stream else [end["content"], end["reasoning"]]
        is_equal(texts, ["yes and no", ""], "openai: reasoning that nobody wants is left out of the content")
        server.scripts = ["<thick>"]
        end = engine.run(prompt="Hello.", budget=0, stream=stream)
        is_equal(end["streamed"][0] if stream else end["content"], "<thick>", "openai: and nothing else")
    server.scripts = ['<think>\nA number.\n</think>\n\n{"a": 5, "b": "x"}']
    for budget, reasoning in ((-1, "A number."), (0, "")):
        end = engine.run(prompt="Hello.", kind="schema", form=SCHEMA, budget=budget)
        is_equal((json.loads(end.get("content", "{}")), end.get("reasoning")), ({"a": 5, "b": "x"}, reasoning),
                 f"openai: JSON behind reasoning, budget {budget}")
    server.scripts = ["<think>\nIt does not"]
    end = engine.run(prompt="Hello.", budget=0)
    is_equal((end.get("content"), end.get("reasoning")), ("", ""), "openai: reasoning without an end")
    for what, request in {"ids": {"ids": [1, 2]}, "scores": {"prompt": "a", "kind": "choices", "form": LABELS, "score": True},
                          "tools": {"prompt": "a", "tools": '[{"name":"f"}]'}, "a budget": {"prompt": "a", "budget": 5}, "top_k": {"prompt": "a", "top_k": 5},
                          "a regular expression": {"prompt": "a", "kind": "regex", "form": "a+"}}.items():
        is_equal(engine.run(**request).get("status"), "unsupported", f"openai: {what} refused")
    engine.stop()
    server.stop()


def check_adapters():
    server = mock("vllm", "yes", adapters=["poet"])
    engine = proxy(server)
    engine.run(prompt="Hello.", adapter="poet")
    is_equal(server.requests[-1]["model"], "poet", "an adapter that the server has is asked for by its name")
    is_equal(engine.run(prompt="Hello.", adapter="clerk")["status"], "not_found", "another one is refused")
    other = mock("vllm", "no", adapters=["clerk", "poet's \u00e4lter ego"])
    both = proxy(server, other)
    for name, answer in (("poet", "yes"), ("clerk", "no"), ("poet's \u00e4lter ego", "no")):
        ends = [both.run(prompt="Hello.", adapter=name, budget=0).get("content") for _ in range(4)]
        is_equal(ends, [answer] * 4, f"of two servers, that one is asked which has the adapter {name}")
    server.stop()
    ends = [both.run(prompt="Hello.", adapter=name, budget=0, seconds=30) for name in ("clerk", "poet")]
    is_equal([end.get("content", end.get("status")) for end in ends], ["no", "unavailable"], "and no other one in its place")
    both.stop()
    other.stop()
    engine.stop()


# ---- faults ----

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
    server.faults = ["unknown"] * 20
    end = engine.run(prompt="Hello.")
    report(end.get("status") == "unavailable" and "which the model's tokenizer does not have" in end["message"], f"{name}: tokens of another model", end)
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


def check_many():
    """More than a process may have files open by default, all of them at the same time."""
    server = mock("vllm", "word " * 30, pause=0.2)
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY // 2, most))
    try:
        engine = proxy(server)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))
    requests = [engine.generate(prompt="Hello.", budget=0) for _ in range(MANY)]
    ends = [engine.wait(r, 120) for r in requests]
    report(all(e.get("content") == "word " * 30 for e in ends), f"{MANY} requests in flight", ends[0])
    report(server.most > MANY // 2, "at the same time", server.most)
    times = min(min(e[part] for part in ("queue_ms", "prefill_ms", "decode_ms")) for e in ends)
    report(times >= 0, "none of which begins before it was submitted", times)
    engine.stop()
    server.stop()


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
    """A server that refuses everything, though it says that it is what it was: requests fail, but not for good."""
    for fault, code in (("404", "404"), ("401", "{engine_api_key_file}")):
        server = mock("vllm", "yes")
        engine = proxy(server)
        server.faults = [fault] * 100
        end = engine.run(prompt="Hello.", budget=0)
        report(end.get("status") == "unavailable" and code in json.dumps(end), f"{fault} again and again fails, retryably", end)
        server.faults = []
        is_equal(engine.run(prompt="Hello.", budget=0).get("content"), "yes", "and later does not")
        log = engine.stop()
        report(f"status {fault}" in log, "the log says why", log)
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
        server = mock(dialect, "positive", answers=["positive"])
        engine = proxy(server)
        server.faults = ["stream"] * 100
        end = engine.run(prompt="Hello.", kind="choices", form=LABELS, score=True, budget=0)
        report(end.get("status") == "unavailable" and len(server.requests) < 20, f"{dialect}: a stream in place of probabilities", (end, len(server.requests)))
        server.faults = []
        for value in (-math.inf, math.nan, 1.0):
            server.logprob = lambda i: value
            asked = len(server.requests)
            end = engine.run(prompt="Hello.", kind="choices", form=LABELS, score=True, budget=0)
            report(end.get("status") == "unavailable" and len(server.requests) - asked < 20 and key in server.requests[-1],
                   f"{dialect}: a probability whose logarithm is {value}", end)
        engine.stop()
        server.stop()


def check_back_off():
    """Whoever listens where the server was counts how often it is tried."""
    server = mock("vllm", "yes")
    engine = proxy(server)
    port = server.port
    server.stop()
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.1)
        tries, end = [], time.monotonic() + 9
        engine.generate(prompt="Hello.", budget=0)
        while time.monotonic() < end:
            engine.pump(0)
            try:
                listener.accept()[0].close()
                tries.append(time.monotonic())
            except TimeoutError:
                pass
    pauses = [b - a for a, b in zip(tries, tries[1:])]
    report(3 <= len(tries) <= 6 and pauses == sorted(pauses), "a server that is down is tried less and less often", pauses)
    engine.stop()


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


def check_resume():
    """What comes while a stream is paused ends it where it would have ended: more has come by then than is wanted."""
    reasoned = "<think>\n" + "word " * 1500 + "\n</think>\n\nyes"
    server = mock("vllm", reasoned, answers=["no"])
    engine = proxy(server)
    for asked in ({"budget": 7}, {"stops": ["two"], "budget": 0}):
        server.answers = ["no"] if "stops" not in asked else ["one two " + "three " * 1500]
        plain = engine.run(prompt="Hello.", **asked)
        n = len(server.requests)
        server.faults = ["slow"]
        request = engine.generate(prompt="Hello.", **asked)
        engine.until(lambda: len(server.requests) > n)
        engine.send(PAUSE, request)
        engine.pump(1.5)
        time.sleep(1.5)
        engine.send(RESUME, request)
        end = engine.wait(request)
        same = ("content", "reasoning", "tokens", "reasoning_tokens", "finish")
        is_equal([end.get(k) for k in same], [plain.get(k) for k in same], f"a pause changes nothing of a reply with {list(asked)[0]}")
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
    for server in (busy, slow, plain):
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
    pair = [os.path.join(folder, name) for name in ("cert.pem", "key.pem")]
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                           "-keyout", pair[1], "-out", pair[0], "-days", "2", "-subj", "/CN=localhost", "-addext",
                           "subjectAltName=IP:127.0.0.1"], capture_output=True, check=False)
    if made.returncode:
        print("skip certificates: openssl makes none", flush=True)
        return
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
        check_replies(dialect)
        check_asked(dialect)
        check_lost_tokens(dialect)
        check_budget(dialect)
        check_forms(dialect)
        check_characters(dialect)
        check_scores(dialect)
        check_cancel(dialect)
        check_faults(dialect)
    check_openai()
    check_adapters()
    check_redirect()
    check_many()
    check_retry_after()
    check_refusals()
    check_busy()
    check_hostile_scores()
    check_back_off()
    check_silence()
    check_resume()
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
