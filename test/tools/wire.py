"""The frames of src/wire, for tests that speak to an engine or are one. Standard library only."""
import struct

GENERATE, TOKENIZE, DETOKENIZE, LOGITS, CANCEL, PAUSE, RESUME, PUT, FETCH, TRAINING, LESSON, SERVE, FORGET = range(1, 14)
READY, PROGRESS, DELTA, DONE, TOKENS, TEXT, VECTOR, ERROR, CACHE, LEARNED, BYTES, COUNTED = range(64, 76)
HEADER = struct.Struct("=IHHIIQ")
MAGIC, VERSION = 0x4d31574d, 10
PART = 64 << 10  # bytes that one frame carries at most
IDS, ENDS, COUNT = range(3)  # what is wanted of a text's tokens
CONSTRAINTS = {"": 0, "choices": 1, "schema": 2, "regex": 3}


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("=I", len(data)) + data


def words(value, tags=False, wanted=IDS):
    """The payload of a TOKENIZE frame."""
    return text(value) + struct.pack("=BB", tags, wanted)


def numbers(kind, values):
    return struct.pack(f"=I{len(values)}{kind}", len(values), *values)


def generate(prompt="", template=0, owner=0, system="", messages="", tools="", ids=(), max_tokens=1000, budget=-1,
             temperature=0.0, top_p=1.0, top_k=0, seed=1, stream=False, stops=(), kind="", form="", score=False,
             adapter="", logprobs=False, keep=False, background=False):
    """The payload of a GENERATE frame."""
    return (text(prompt) + struct.pack("=IQ", template, owner) + text(system) + text(messages) + text(tools) + text("") +
            numbers("i", list(ids)) + struct.pack("=iiffiQBI", max_tokens, budget, temperature, top_p, top_k, seed, stream,
                                             len(stops)) +
            b"".join(text(stop) for stop in stops) + struct.pack("=B", CONSTRAINTS[kind]) + text(form) +
            struct.pack("=BBB", logprobs, 0, score) + text(adapter) + struct.pack("=BB", keep, background))


def in_parts(kind, payload):
    """The frames of a message: kind, what they carry, and how much follows."""
    return [(kind, payload[at:at + PART], max(len(payload) - at - PART, 0)) for at in range(0, max(len(payload), 1), PART)]


def frame(kind, part, more, request):
    return HEADER.pack(MAGIC, VERSION, kind, len(part), more, request) + part


def message(kind, payload, request):
    return b"".join(frame(*part, request) for part in in_parts(kind, payload))


def exactly(stream, n):
    """The next n bytes of a socket. EOFError at its end."""
    data = b""
    while len(data) < n:
        piece = stream.recv(n - len(data))
        if not piece:
            raise EOFError("the other side has ended")
        data += piece
    return data


class Reader:
    """The fields of a payload, one after the other."""

    def __init__(self, payload):
        self.payload, self.at = payload, 0

    def take(self, form):
        values = struct.unpack_from("=" + form, self.payload, self.at)
        self.at += struct.calcsize("=" + form)
        return values if len(values) > 1 else values[0]

    def bytes(self, unit=1):
        n = self.take("I") * unit
        self.at += n
        return self.payload[self.at - n:self.at]

    def text(self):
        return self.bytes().decode()

    def ids(self):
        data = self.bytes(4)
        return list(struct.unpack(f"={len(data) // 4}i", data))
