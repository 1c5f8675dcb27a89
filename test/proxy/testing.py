"""What the tests of the proxy share: ENGINE, which is their first argument, servers that are none, and a proxy before them.
Standard library only."""
import sys

from frames import Engine
from mock import Mock
from words import Words

ENGINE = sys.argv[1]
MODEL = "models/m1-nano"
DIALECTS = {"vllm": {}, "vllm 0.9.2": {"version": "0.9.2"}, "llama.cpp": {}, "sglang": {}}
REASONED = "<think>\nA na\u00efve greeting.\n</think>\n\nHello, \u20ac10 \u2014 how are you?"
LABELS = '["positive","negative","neutral"]'
SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a","b"]}'


def report(ok, name, why=""):
    print(("ok " if ok else "not ok ") + name + (f": {why}" if why and not ok else ""), flush=True)


def is_equal(got, wanted, name):
    report(got == wanted, name, f"{got!r} is not {wanted!r}")


words = Words(ENGINE, MODEL)


def mock(dialect="vllm", *scripts, **options):
    more = DIALECTS.get(dialect, {})
    return Mock(dialect.split()[0], words.tokens, words.eos, words.vocab, scripts=scripts, pieces=words.pieces,
                special=words.special, **more, **options)


def proxy(*servers, options=(), model=MODEL):
    urls = ",".join(s if isinstance(s, str) else s.url for s in servers)
    engine = Engine(ENGINE, "proxy", "--model", model, "--url", urls, *options)
    engine.greeting = engine.start()
    return engine
