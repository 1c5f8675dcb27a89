#!/usr/bin/env python3
"""The proxy before servers of every dialect: what a request gets of them, as the worker sees it. faults.py has those that
misbehave.

proxy.py ENGINE: prints a line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only.
"""
import json
import math
import resource
import time

from mock import normalised
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
             "top_k": -1, "stop_token_ids": [words.eos], "ignore_eos": False, "logprobs": 0, "return_token_ids": True, "return_tokens_as_token_ids": True},
    "llama.cpp": {"cache_prompt": True, "samplers": ["temperature", "top_k", "top_p"], "timings_per_token": True,
                  "return_progress": True, "top_k": 0},
    "sglang": {"skip_special_tokens": False, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
               "top_k": -1, "stop_token_ids": [words.eos], "ignore_eos": False},
}


def check_asked(name):
    server = mock(name, "abc")
    engine = proxy(server)
    engine.run(prompt="Hello.", budget=0)
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
    lead = next(i for i, piece in words.pieces.items() if piece == b"\xc3")
    server.tokens = lambda text: [lead] + words.tokens("a")
    end = engine.run(prompt="Hello.", budget=0)
    is_equal((end.get("content"), end.get("tokens")), ("\ufffda", 3), f"{name}: tokens that are no text")
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


def check_resume():
    """What comes while a stream is paused ends it as if it had not been."""
    server = mock("vllm", "", answers=["one two " + "three " * 1000])
    engine = proxy(server)
    stop = words.pieces[words.tokens("one")[0]].decode()  # in the first event, of which libcurl keeps some while it waits
    plain = engine.run(prompt="Hello.", budget=0, stops=[stop])
    for _ in range(3):
        n = len(server.requests)
        server.faults = ["slow"]
        request = engine.generate(prompt="Hello.", budget=0, stops=[stop])
        engine.until(lambda: len(server.requests) > n)
        engine.send(PAUSE, request)
        engine.pump(0)
        time.sleep(1.5)
        engine.send(RESUME, request)
        end = engine.wait(request)
        same = ("content", "tokens", "finish")
        is_equal([end.get(k) for k in same], [plain.get(k) for k in same], "a pause changes nothing of a reply that a stop string ends")
    engine.stop()
    server.stop()


for dialect in DIALECTS:
    check_replies(dialect)
    check_asked(dialect)
    check_lost_tokens(dialect)
    check_budget(dialect)
    check_forms(dialect)
    check_characters(dialect)
    check_scores(dialect)
    check_cancel(dialect)
check_openai()
check_adapters()
check_many()
check_resume()
words.engine.stop()
print("done")
