#!/usr/bin/env python3
"""An engine that says what it is told to, for tests of those who listen to it. Standard library only.

fake_engine.py LIE serve --fd N ...: greets, and answers requests as the real engine would, in form at least, except for
the one LIE, a key of LIES below; fake_engine.py --list shows all, each with its question and who notices. Four are none of
them: "slow" is the truth, with a pause before each piece of a streamed reply; "flood" streams FLOOD bytes without a look at
what it is told; "calls " with a JSON array of tool calls makes one of them in each reply to a conversation, and says yes
behind the last one, and with null among them it ends instead when it is to count tokens; and "says WORDS" has these as
content and tool calls of all replies. The frames and messages are those of src/wire.
"""
import json
import math
import os
import socket
import struct
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))

from wire import (CACHE, COUNT, COUNTED, DELTA, DETOKENIZE, DONE, ENDS, ERROR, GENERATE, HEADER, LOGITS, PART, PROGRESS, READY, TEXT,
                  TOKENIZE, TOKENS, VECTOR, Reader, exactly, frame, in_parts, numbers, text)

VOCAB = 100
FLOOD = 256 << 20
LIE = sys.argv[1]
CALLS = json.loads(LIE.removeprefix("calls ")) if LIE.startswith("calls ") else []
NAN = float("nan")
# Of several parts, each of which ends within a character.
LONG = b"." * 3 + "é".encode() * 100000


def ready(name=b"fake", parameters=1000, layers=2, experts=2, context=1000, vocab=VOCAB):
    return READY, (text(name) + text(b"Fake") + text(b"cpu") +
                   struct.pack("=QQiiiiB", parameters, 1000, layers, experts, context, vocab, 1))


def progress(prompt=10, prefilled=10, generated=1, phase=2):
    return PROGRESS, struct.pack("=Biii", phase, prompt, prefilled, generated)


def delta(words, channel=0):
    return DELTA, struct.pack("=B", channel) + text(words)


def done(content=b"yes", ids=(), finish=0, prompt=10, cached=0, reasoning=0, completion=2, ms=1.0, logprobs=b"",
         written=b"", kept=(b"", b"", b"", b"", b"", b""), calls=b""):
    return DONE, (text(content) + text(b"") + text(calls) + numbers("i", ids) +
                  struct.pack("=BiiiiQddd", finish, prompt, cached, reasoning, completion, 1, ms, ms, ms) + text(logprobs)
                  + text(written) + struct.pack("=I", len(kept[0]) // 4) + kept[0] + text(kept[1]) + text(kept[2])
                  + struct.pack("=I", len(kept[3]) // 4) + kept[3] + text(kept[4])
                  + struct.pack("=I", len(kept[5]) // 4) + kept[5])


def tokens(ids=(), ends=()):
    return TOKENS, numbers("i", ids) + numbers("i", ends)


def ids_of(words):
    return tokens(ids=[1] * len(words))


def ends_of(words):
    return tokens(ends=range(1, len(words) + 1))


def counted(n):
    return COUNTED, struct.pack("=q", n)


# What a lie says instead of the truth: by the type of the request, one frame or several. 0 is the greeting.
LIES = {
    "ends beyond": ("ends", lambda w: tokens(ends=[len(w) + 1])),
    "ends descend": ("ends", lambda w: tokens(ends=range(len(w), 0, -1))),
    "ends negative": ("ends", lambda w: tokens(ends=[-i for i in range(len(w))])),
    "ends far behind descend": ("ends", lambda w: tokens(ends=[1] * (len(w) - 1) + [0])),
    "more ends than bytes": ("ends", lambda w: tokens(ends=[1] * (len(w) + 1))),
    "ids instead of ends": ("ends", ids_of),
    "ids beside ends": ("ends", lambda w: tokens(ids=[1], ends=[1])),
    "a count instead of ends": ("ends", lambda w: counted(len(w))),
    "cut short": ("ends", lambda w: (TOKENS, b"\1")),
    "cut behind the ids": ("ends", lambda w: (TOKENS, numbers("i", []))),
    "ids negative": ("tokens", lambda w: tokens(ids=[-1] * len(w))),
    "ids beyond": ("tokens", lambda w: tokens(ids=[VOCAB] * len(w))),
    "ids far behind absurd": ("tokens", lambda w: tokens(ids=[1] * (len(w) - 1) + [VOCAB])),
    "more ids than bytes": ("tokens", lambda w: tokens(ids=[1] * (len(w) + 1))),
    "ends instead of ids": ("tokens", ends_of),
    "ends beside ids": ("tokens", lambda w: tokens(ids=[1], ends=[1])),
    "more tokens than it says": ("tokens", lambda w: (TOKENS, ids_of(w)[1] + b"\0\0\0\0")),
    "a count above the bytes": (TOKENIZE, lambda w: counted(len(w) + 1)),
    "a count of nothing": (TOKENIZE, lambda w: counted(0)),
    "a count below nothing": (TOKENIZE, lambda w: counted(-1)),
    "a count cut short": (TOKENIZE, lambda w: (COUNTED, b"\1")),
    "ids instead of a count": (TOKENIZE, ids_of),
    "another answer": (TOKENIZE, lambda w: done()),
    "progress of text": (TOKENIZE, lambda w: progress()),
    "no such type": (TOKENIZE, lambda w: (99, b"")),
    "text not UTF-8": (DETOKENIZE, lambda w: (TEXT, text(b"a\xff"))),
    "long text not UTF-8": (DETOKENIZE, lambda w: (TEXT, text(LONG[:-1] + b"\xc3"))),
    "a character cut by a part": (DETOKENIZE, lambda w: (TEXT, text(LONG.replace("é".encode(), b"\xc3.")))),
    "parts of another length": (DETOKENIZE, lambda w: [(TEXT, text(LONG)[:PART], len(text(LONG)) - PART), (TEXT, b"x", 0)]),
    "parts of another answer": (DETOKENIZE, lambda w: [(TEXT, text(LONG)[:PART], len(text(LONG)) - PART), (TOKENS, b"x", 0)]),
    "more text than it says": (DETOKENIZE, lambda w: (TEXT, text(b"abc") + b"d")),
    "a long reply not UTF-8": (GENERATE, lambda w: done(content=LONG[:-1] + b"\xff")),
    "a long reply in other parts": (GENERATE, lambda w: [(DONE, done(content=LONG)[1][:PART], 1000000), progress(), done()]),
    "text with NUL": (DETOKENIZE, lambda w: (TEXT, text(b"a\0b"))),
    "vector short": (LOGITS, lambda w: (VECTOR, text(struct.pack("=2f", 1, 2)))),
    "vector odd": (LOGITS, lambda w: (VECTOR, text(b"abc"))),
    "content not UTF-8": (GENERATE, lambda w: done(content=b"\xc3")),
    "tokens negative": (GENERATE, lambda w: done(prompt=-5)),
    "completion negative": (GENERATE, lambda w: done(completion=-2000000000)),
    "tokens absurd": (GENERATE, lambda w: done(prompt=2000000000)),
    "completion absurd": (GENERATE, lambda w: done(completion=1008)),
    "cached beyond": (GENERATE, lambda w: done(cached=11)),
    "reasoning beyond": (GENERATE, lambda w: done(reasoning=3)),
    "no such finish": (GENERATE, lambda w: done(finish=9)),
    "ids unasked": (GENERATE, lambda w: done(ids=[1])),
    "time negative": (GENERATE, lambda w: done(ms=-1.0)),
    "time not a number": (GENERATE, lambda w: done(ms=NAN)),
    "time infinite": (GENERATE, lambda w: done(ms=float("inf"))),
    "probabilities unasked": (GENERATE, lambda w: done(logprobs=struct.pack("=d", -1))),
    "written probabilities unasked": (GENERATE, lambda w: done(written=b"[]")),
    "kept ids unasked": (GENERATE, lambda w: done(kept=(bytes(4), b"", b"", b"", b"", b""))),
    "kept probabilities unasked": (GENERATE, lambda w: done(kept=(b"", bytes(4), b"", b"", b"", b""))),
    "kept experts unasked": (GENERATE, lambda w: done(kept=(b"", b"", bytes(2), b"", b"", b""))),
    "kept masks unasked": (GENERATE, lambda w: done(kept=(b"", b"", b"", bytes(4), bytes(8), bytes(4)))),
    "stream unasked": (GENERATE, lambda w: delta(b"a")),
    "progress negative": (GENERATE, lambda w: [progress(prompt=-10, prefilled=-10), done()]),
    "progress beyond": (GENERATE, lambda w: [progress(prefilled=11), done()]),
    "progress absurd": (GENERATE, lambda w: [progress(generated=2000000000), done()]),
    "progress back": (GENERATE, lambda w: [progress(generated=5), progress(generated=4), done(completion=5)]),
    "prefill back": (GENERATE, lambda w: [progress(prefilled=5, phase=1), progress(prefilled=4, phase=1), done()]),
    "phase back": (GENERATE, lambda w: [progress(), progress(phase=1), done()]),
    "another prompt": (GENERATE, lambda w: [progress(), progress(prompt=11, prefilled=11), done(prompt=11)]),
    "prompt of the end": (GENERATE, lambda w: [progress(), done(prompt=11)]),
    "less than progress": (GENERATE, lambda w: [progress(generated=3), done(completion=2)]),
    "no such phase": (GENERATE, lambda w: [progress(phase=7), done()]),
    "error without code": (GENERATE, lambda w: (ERROR, struct.pack("=I", 0) + text(b"") * 3)),
    "another model": (GENERATE, lambda w: [ready(context=2000), done()]),
    "news absurd": (GENERATE, lambda w: [ready(parameters=2**64 - 1), done()]),
    "snapshots absurd": (GENERATE, lambda w: [(CACHE, struct.pack("=IQ", 0xffffffff, 1)), done()]),
    "probability not a number": ("scored", lambda w: done(logprobs=struct.pack("=2d", NAN, NAN))),
    "probability above one": ("scored", lambda w: done(logprobs=struct.pack("=2d", 5, -1))),
    "ids of a model": ("ids", lambda w: done(ids=[1, VOCAB], prompt=1)),
    "fewer ids than tokens": ("ids", lambda w: done(ids=[1], prompt=1)),
    "more ids than were asked for": ("ids", lambda w: done(ids=[1] * 30, prompt=1, completion=30)),
    "a prompt of more ids": ("ids", lambda w: done(ids=[1, 2], prompt=2)),
    "progress of more ids": ("ids", lambda w: [progress(), done(ids=[1, 2], prompt=1)]),
    "logits that are no numbers": (LOGITS, lambda w: (VECTOR, text(struct.pack(f"={VOCAB}f", *[NAN] * VOCAB)))),
    "logits without end": (LOGITS, lambda w: (VECTOR, text(struct.pack(f"={VOCAB}f", *[float("inf")] * VOCAB)))),
    "a prompt of none": (GENERATE, lambda w: done(prompt=0)),
    "no context": (0, lambda w: ready(context=0)),
    "context negative": (0, lambda w: ready(context=-1)),
    "no vocabulary": (0, lambda w: ready(vocab=0)),
    "vocabulary absurd": (0, lambda w: ready(vocab=2**31 - 1)),
    "layers negative": (0, lambda w: ready(layers=-1)),
    "parameters absurd": (0, lambda w: ready(parameters=2**64 - 1)),
}


# What the worker cannot know, and who asked does not believe.
def token(logprob=-1.5, channel="content", byte=121, top=()):
    return {"token": "y", "bytes": [byte], "logprob": logprob, "channel": channel, "top_logprobs": list(top)}


def measured(*tokens):
    return lambda w: [progress(), done(written=json.dumps(tokens).encode())]


MISTRUSTED = {
    "probabilities of three": ("scored", lambda w: done(logprobs=struct.pack("=3d", math.log(0.5), math.log(0.3), math.log(0.2)))),
    "probabilities of one": ("scored", lambda w: done(logprobs=struct.pack("=d", 0))),
    "probabilities of more than all": ("scored", lambda w: done(logprobs=struct.pack("=2d", math.log(0.9), math.log(0.9)))),
    "probabilities of nothing": ("scored", lambda w: done(logprobs=struct.pack("=2d", -1e300, -1e300))),
    "no JSON of tokens": ("measured", lambda w: done(written=b"[1, oops")),
    "one token instead of a list": ("measured", lambda w: done(written=json.dumps(token()).encode())),
    "a token of nothing": ("measured", measured(None)),
    "a token above 1": ("measured", measured(token(2.0))),
    "a token beyond numbers": ("measured", lambda w: done(written=json.dumps([token()]).replace("-1.5", "-1e999").encode())),
    "a token without a number": ("measured", measured(token("-1"))),
    "a byte of more bits": ("measured", measured(token(byte=256))),
    "a channel that is none": ("measured", measured(token(channel="x"))),
    "an alternative above 1": ("measured", measured(token(top=[{"token": "n", "bytes": [110], "logprob": 7}]))),
    "more alternatives than can be": ("measured", measured(token(top=[token()] * 21))),
}
LIES |= MISTRUSTED


def send(stream, request, frames):
    """Messages of two, and frames of three."""
    for one in frames if isinstance(frames, list) else [frames]:
        for kind, part, more in [one] if len(one) == 3 else in_parts(*one):
            # what is about the engine has no request
            number = 0 if kind in (READY, CACHE) else request
            stream.sendall(frame(kind, part, more, number))


def flood(stream, request):
    piece = b"x" * 10000
    for _ in range(FLOOD // len(piece)):
        send(stream, request, delta(piece))
    send(stream, request, done(content=b""))


def read_generate(payload):
    """Whether it is a request of ids, a stream, scored, and of log probabilities; the fields before them are skipped."""
    at = 0

    def skip(unit=1):
        nonlocal at
        at += 4 + unit * struct.unpack_from("=I", payload, at)[0]

    skip()
    at += 4 + 8
    for _ in range(4):
        skip()
    ids = struct.unpack_from("=I", payload, at)[0] > 0
    skip(4)
    at += 4 + 4 + 4 + 4 + 4 + 8
    stream = payload[at] == 1
    # before an adapter's name, which is empty, keep and background
    return ids, stream, payload[-7] == 1, payload[-9] == 1


def call_next(payload):
    """As many calls have been made as the conversation has results."""
    fields = Reader(payload)
    fields.bytes()
    fields.take("IQ")
    fields.bytes()
    made = [turn["role"] for turn in json.loads(fields.text() or "[]")].count("tool")
    return [progress(), done(content=b"", calls=json.dumps(CALLS[made:made + 1]).encode()) if CALLS[made:] else done()]


def words_of(payload):
    """Of a TOKENIZE frame."""
    return payload[4:-2]


def truth_of_words(payload):
    words, wanted = words_of(payload), payload[-1]
    if wanted == COUNT:
        return TOKENIZE, counted(len(words))
    return ("ends", ends_of(words)) if wanted == ENDS else ("tokens", ids_of(words))


def truth(kind, payload):
    """The kind of the request, as LIES has it, and its answer."""
    if kind == TOKENIZE:
        return truth_of_words(payload)
    if kind == DETOKENIZE:
        return kind, (TEXT, text(LONG))
    if kind == LOGITS:
        return kind, (VECTOR, text(struct.pack(f"={VOCAB}f", *[0.5] * VOCAB)))
    if CALLS:
        return kind, call_next(payload)
    ids, stream, scored, is_measured = read_generate(payload)
    if ids:
        return "ids", [progress(1, 1), done(content=b"", ids=[1, 2], prompt=1)]
    if scored:
        return "scored", [progress(), done(logprobs=struct.pack("=2d", math.log(0.9), math.log(0.1)))]
    if is_measured:
        return "measured", measured(token(top=[token(), token(-2)]))(b"")
    if stream:
        return "stream", [delta(b"one "), delta(b"two "), delta(b"three "), delta(b"four "), delta(b"five "), done(content=b"")]
    return kind, [progress(), done()]


def serve(fd):
    stream = socket.socket(fileno=fd)
    kind, lie = LIES.get(LIE, (None, None))
    if LIE.startswith("says "):
        words = LIE[5:].encode()
        kind, lie = GENERATE, lambda w: [progress(), done(content=words, calls=words)]
    parts = {}
    send(stream, 0, lie(b"") if kind == 0 else ready())
    while True:
        header = exactly(stream, HEADER.size)
        _, _, asked, length, more, request = HEADER.unpack(header)
        parts.setdefault(request, []).append(exactly(stream, length))
        if more > 0:
            continue
        payload = b"".join(parts.pop(request))
        if asked not in (GENERATE, TOKENIZE, DETOKENIZE, LOGITS):
            continue
        if asked == TOKENIZE and None in CALLS:
            return
        what, answer = truth(asked, payload)
        if LIE.startswith("says ") and what == "stream":
            answer = [progress(), done(content=b"", calls=words)]
        if what == kind:
            answer = lie(words_of(payload) if asked == TOKENIZE else payload[4:])
        if LIE == "slow" and what == "stream":
            for one in answer:
                time.sleep(0.3)
                send(stream, request, one)
        elif LIE == "flood" and what == "stream":
            flood(stream, request)
        else:
            send(stream, request, answer)


if LIE == "--list":
    for name, (kind, _) in LIES.items():
        print(f"{kind}|{'asked' if name in MISTRUSTED else 'worker'}|{name}")
else:
    try:
        serve(int(sys.argv[sys.argv.index("--fd") + 1]))
    except EOFError:
        pass
