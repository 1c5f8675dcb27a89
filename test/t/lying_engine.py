#!/usr/bin/env python3
"""The real engine, but for one lie about a training, for tests of those who listen to it. Standard library only.

lying_engine.py FOLDER ENGINE serve --fd N ...: runs ENGINE with the rest of its arguments, and passes on what is said on
either side. The file FOLDER/lie names one of LIES: the first answer that it is about is changed, and the file is renamed to
told, so that it is told once, and the truth from then on; "always" and a blank in front of it has it told each time.
lying_engine.py --list shows all of them, with who notices, the worker, which ends the engine, or the training, which fails, and with the
question, a key of QUESTIONS.
"""
import os
import socket
import struct
import subprocess
import sys
import threading

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))

from wire import BYTES, DONE, FETCH, GENERATE, HEADER, LEARNED, LESSON, PROGRESS, SERVE, TRAINING, Reader, exactly, message, numbers, text

NAN, INF, MB = float("nan"), float("inf"), 1 << 20
STATE, FILES = 1, 2  # parts that are fetched

# The fields of answers, in struct's letters; s are bytes, and brackets arrays: behind their bytes, or of ids behind their number.
FIELDS = {
    DONE: "content=s reasoning=s calls=s ids=i[] finish=B prompt=i cached=i reasoned=i completion=i seed=Q queue_ms=d prefill_ms=d "
          "decode_ms=d choices=s logprobs=s prompt_ids=i[] sampled=f[] experts=H[] masked=i[] masks=s mask_of=i[]",
    LEARNED: "updates=q dropped=B loss=d balance=d most_load=d entropy=d gradient_norm=d old_difference=d old_mean=d tokens=q rows=q "
             "learned=q predicted=q clipped=q rerouted=q seconds=d bytes=Q digest=s logprobs=f[]",
    BYTES: "name=s part=B total=Q offset=Q most=I bytes=s",
    PROGRESS: "phase=B prompt=i prefilled=i generated=i",
}


def fields_of(kind):
    return [field.split("=") for field in FIELDS[kind].split()]


def decode(kind, payload):
    reader, values = Reader(payload), {}
    for name, code in fields_of(kind):
        if code == "i[]":
            values[name] = reader.ids()
        elif code == "s":
            values[name] = bytes(reader.bytes())
        elif code.endswith("[]"):
            data = reader.bytes()
            values[name] = list(struct.unpack(f"={len(data) // struct.calcsize(code[0])}{code[0]}", data))
        else:
            values[name] = reader.take(code)
    return values


def encode(kind, values):
    def one(value, code):
        if code == "i[]":
            return numbers("i", value)
        if code == "s":
            return text(value)
        if code.endswith("[]"):
            return text(struct.pack(f"={len(value)}{code[0]}", *value))
        return struct.pack("=" + code, value)

    return b"".join(one(values[name], code) for name, code in fields_of(kind))


# ---- what questions are asked: each is told of its payload ----

def is_update(payload):
    reader = Reader(payload)
    reader.bytes()
    return reader.take("BBB")[1] == 1


def is_of_training(payload):
    """An answer that is kept, in the background: not one of those that train() looks at."""
    return payload[-2:] == b"\1\1"


def fetches(part):
    def asks(payload):
        reader = Reader(payload)
        reader.bytes()
        return reader.take("B") == part
    return asks


def any_of_it(payload):
    return True


QUESTIONS = {
    "update": (LESSON, is_update),
    "measure": (LESSON, lambda payload: not is_update(payload)),
    "begin": (TRAINING, any_of_it),
    "serve": (SERVE, any_of_it),
    "answer": (GENERATE, is_of_training),
    "state": (FETCH, fetches(STATE)),
    "files": (FETCH, fetches(FILES)),
}


# ---- lies: each changes the fields of an answer ----

def says(**values):
    """Each a value, or a function of what it was. A lie that is another type of answer returns that."""
    def lie(a):
        a.update({name: value(a[name]) if callable(value) else value for name, value in values.items()})
    return lie


def more(n):
    return lambda value: value + n


def without_last(value):
    return value[:-1]


def twice(values):
    return values + values


def last_is(x):
    return lambda values: values[:-1] + [x]


def of_files(change):
    """Files of another length, which is told as such."""
    def lie(a):
        a["bytes"] = change(a["bytes"])
        a["total"] = len(a["bytes"])
    return lie


def with_header(old, new):
    """The same with a word of the header, of the same length."""
    assert len(old) == len(new)
    return of_files(lambda files: files.replace(old, new, 1))


def of_another_base(state):
    """Where there was another state before: it counts updates."""
    return state if state[24:32] == bytes(8) else state[:8] + b"0123456789abcdef" + state[24:]


def as_bytes(a):
    a.update({"name": b"x", "part": 0, "total": 0, "offset": 0, "most": 0, "bytes": b""})
    return BYTES


def masks_of_nothing(a):
    a["masks"] = bytes(len(a["masks"]))


WORKER = {
    **{f"{name} is {x}": ("update", LEARNED, says(**{name: x}))
       for name, x in (("loss", NAN), ("loss", INF), ("balance", NAN), ("most_load", INF), ("entropy", NAN), ("gradient_norm", INF),
                       ("old_difference", NAN), ("old_mean", INF), ("seconds", NAN))},
    "a loss that sums cannot hold": ("update", LEARNED, says(loss=1e300)),
    "an entropy of more tokens": ("update", LEARNED, says(entropy=100.0)),
    "a norm below 0": ("update", LEARNED, says(gradient_norm=-1.0)),
    "a load of more experts": ("update", LEARNED, says(most_load=1e6)),
    "time below 0": ("update", LEARNED, says(seconds=-1.0)),
    "a measure that is dropped": ("measure", LEARNED, says(dropped=1)),
    "a lesson of more tokens": ("update", LEARNED, says(tokens=more(1))),
    "a lesson of fewer tokens": ("update", LEARNED, says(tokens=more(-1))),
    "more rows than tokens": ("update", LEARNED, says(rows=1 << 40)),
    "rows below 0": ("update", LEARNED, says(rows=-1)),
    "more learned than tokens": ("update", LEARNED, says(learned=1 << 40)),
    "more predicted than learned": ("update", LEARNED, says(learned=0)),
    "more clipped than predicted": ("update", LEARNED, says(predicted=0, clipped=1)),
    "clipped below 0": ("update", LEARNED, says(clipped=-1)),
    "more rerouted than rows": ("update", LEARNED, says(rerouted=1 << 40)),
    "updates below 0": ("update", LEARNED, says(updates=-1)),
    "bytes beyond the memory": ("begin", LEARNED, says(bytes=1 << 60)),
    "another digest's form": ("begin", LEARNED, says(digest=b"0123456789ABCDEF")),
    "no digest": ("serve", LEARNED, says(digest=b"")),
    "a lesson's digest": ("update", LEARNED, says(digest=b"0123456789abcdef")),
    "fewer logprobs": ("measure", LEARNED, says(logprobs=without_last)),
    "more logprobs": ("measure", LEARNED, says(logprobs=more([-1.0]))),
    "logprobs unasked": ("update", LEARNED, says(logprobs=[-1.0])),
    "a logprob above 0": ("measure", LEARNED, says(logprobs=last_is(1.0))),
    "a logprob that is no number": ("measure", LEARNED, says(logprobs=last_is(NAN))),
    "a logprob of nothing": ("measure", LEARNED, says(logprobs=last_is(-INF))),
    "a piece too short": ("state", BYTES, says(bytes=without_last)),
    "a piece too long": ("state", BYTES, says(bytes=more(b"x"))),
    "an empty piece": ("state", BYTES, says(bytes=b"")),
    "a piece from elsewhere": ("state", BYTES, says(offset=more(1))),
    "a piece of another part": ("state", BYTES, says(part=FILES)),
    "pieces without end": ("state", BYTES, says(total=1 << 60)),
    "an end before the piece": ("state", BYTES, says(total=0)),
    "an answer to another question": ("update", LEARNED, as_bytes),
    "more tokens than were asked for": ("answer", DONE, says(completion=more(100))),
    "ids of fewer tokens": ("answer", DONE, says(ids=without_last, sampled=without_last)),
    "ids of another vocabulary": ("answer", DONE, says(ids=last_is(1 << 30))),
    "a prompt of fewer ids": ("answer", DONE, says(prompt_ids=without_last)),
    "a prompt of none": ("answer", DONE, says(prompt=0, cached=0, prompt_ids=[])),
    "a prompt of another vocabulary": ("answer", DONE, says(prompt_ids=last_is(-1))),
    "fewer sampled than ids": ("answer", DONE, says(sampled=without_last)),
    "a sampled one above 0": ("answer", DONE, says(sampled=last_is(1.0))),
    "a sampled one that is no number": ("answer", DONE, says(sampled=last_is(NAN))),
    "a sampled one of nothing": ("answer", DONE, says(sampled=last_is(-INF))),
    "fewer experts than tokens": ("answer", DONE, says(experts=without_last)),
    "an expert of another model": ("answer", DONE, says(experts=last_is(1000))),
    "a mask behind the text": ("answer", DONE, says(masked=last_is(1000))),
    "a place that is masked twice": ("answer", DONE, says(masked=twice, mask_of=twice)),
    "a mask before the text": ("answer", DONE, says(masked=lambda places: [-1] + places[1:])),
    "masks cut short": ("answer", DONE, says(masks=lambda masks: masks[:-8])),
    "masks that forbid what was chosen": ("answer", DONE, masks_of_nothing),
    "a number of no mask": ("answer", DONE, says(mask_of=last_is(1000))),
    "fewer numbers than masks": ("answer", DONE, says(mask_of=without_last)),
    "content that is not UTF-8": ("answer", DONE, says(content=b"\xff")),
    "progress beyond what was asked for": ("answer", PROGRESS, says(generated=900)),
}
TRAINING_NOTICES = {
    "calls that are no JSON": ("answer", DONE, says(calls=b"[1, oops")),
    "an update that was not asked for": ("update", LEARNED, says(updates=more(1))),
    "an update left out": ("update", LEARNED, says(updates=more(-1))),
    "an update that was dropped all the same": ("update", LEARNED, says(dropped=1, loss=NAN, gradient_norm=INF)),
    "a measure that updates": ("measure", LEARNED, says(updates=more(1))),
    "another state than was left": ("begin", LEARNED, says(updates=7)),
    "a state of another length": ("begin", LEARNED, says(bytes=more(-4))),
    "a longer state": ("state", BYTES, of_files(lambda state: state + bytes(4))),
    "a shorter state": ("state", BYTES, of_files(lambda state: state[:-4])),
    "a state of nothing": ("begin", LEARNED, says(bytes=0)),
    "a state of no model": ("state", BYTES, says(bytes=lambda state: bytes(len(state)))),
    "a state of another model": ("state", BYTES, says(bytes=of_another_base)),
    "files of nothing": ("files", BYTES, of_files(lambda files: b"")),
    "files cut short": ("files", BYTES, of_files(lambda files: files[:-4])),
    "files that are none": ("files", BYTES, says(bytes=lambda files: b"x" * len(files))),
    "a config that is longer than all": ("files", BYTES, says(bytes=lambda files: files[:8] + b"\xff" * 4 + files[12:])),
    "a config of another kind": ("files", BYTES, with_header(b"LORA", b"LOHA")),
    "a config that is no JSON": ("files", BYTES, with_header(b'"peft_type"', b'"peft_type\xff')),
    "numbers of another type": ("files", BYTES, with_header(b'"F32"', b'"F64"')),
    "numbers from elsewhere": ("files", BYTES, with_header(b'"data_offsets":[0,', b'"data_offsets":[4,')),
    "files of another model": ("files", BYTES, with_header(b'"base_digest":"', b'"base_digesu":"')),
    "files that hold no numbers": ("files", BYTES, says(bytes=lambda files: files[:-4] + struct.pack("=f", NAN))),
}
LIES = {**WORKER, **TRAINING_NOTICES}


class Liar:
    def __init__(self, folder):
        self.lie, self.told = os.path.join(folder, "lie"), os.path.join(folder, "told")
        self.questions = {}

    def asked(self, header, part):
        """The first part of a question is enough to know what it is, but for a request, whose end tells."""
        first, _ = self.questions.get(header[5], (b"", 0))
        self.questions[header[5]] = (first + part, header[2])

    def answer(self, kind, payload, request):
        """What is passed on: its type and its payload."""
        question, asked = self.questions.get(request, (b"", 0))
        if kind not in FIELDS or not os.path.exists(self.lie):
            return kind, payload
        with open(self.lie, encoding="utf-8") as f:
            name = f.read().strip()
        which, of_kind, lie = LIES[name.removeprefix("always ")]
        if kind != of_kind or QUESTIONS[which][0] != asked or not QUESTIONS[which][1](question):
            return kind, payload
        values = decode(kind, payload)
        another = lie(values) or kind
        changed = encode(another, values)
        if changed != payload and not name.startswith("always "):
            os.rename(self.lie, self.told)
        return another, changed


def pass_on(here, there, change):
    """Whole frames, until one side ends."""
    try:
        while True:
            head = exactly(here, HEADER.size)
            header = HEADER.unpack(head)
            there.sendall(change(header, head, exactly(here, header[3])))
    except (EOFError, OSError):
        os._exit(0)


def serve(folder, command):
    at = command.index("--fd") + 1
    server = socket.socket(fileno=int(command[at]))
    ours, engines = socket.socketpair()
    command[at] = str(engines.fileno())
    # which ends when its socket does
    subprocess.Popen(command, pass_fds=[engines.fileno()])
    engines.close()
    liar, parts = Liar(folder), {}

    def question(header, head, part):
        liar.asked(header, part)
        return head + part

    def answer(header, head, part):
        request = header[5]
        parts.setdefault(request, []).append(part)
        if header[4] > 0:
            return b""
        kind, whole = header[2], b"".join(parts.pop(request))
        return message(*liar.answer(kind, whole, request), request)

    threading.Thread(target=pass_on, args=(server, ours, question), daemon=True).start()
    pass_on(ours, server, answer)


if sys.argv[1] == "--list":
    for lie in LIES:
        print(f"{'worker' if lie in WORKER else 'training'}|{LIES[lie][0]}|{lie}")
else:
    serve(sys.argv[1], sys.argv[2:])
