#!/usr/bin/env python3
"""Learning through the engine's socket, as the worker would: a rule is learnt from rewards, a killed engine's training
goes on to the same bits, requests beside it are answered, and frames that make no sense are refused.

learning.py ENGINE: prints a line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only.
"""
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))

import wire
from wire import (BYTES, CACHE, CANCEL, DELTA, ERROR, FETCH, FORGET, GENERATE, HEADER, LEARNED, LESSON, PROGRESS, PUT, SERVE,
                  TRAINING, Reader, exactly, frame, message, numbers, text)

MODEL = "models/m1-nano"
CE, CISPO = 0, 1


def report(ok, name, why=""):
    print(("ok " if ok else "not ok ") + name + (": " + str(why) if why != "" and not ok else ""), flush=True)


class Engine:
    def __init__(self, engine, *options):
        self.ours, theirs = socket.socketpair()
        self.process = subprocess.Popen([engine, "serve", "--model", MODEL, "--device", "cpu", "--max-requests", "8",
                                         *options, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()],
                                        stderr=subprocess.DEVNULL)
        theirs.close()
        self.last, self.answers, self.parts = 0, {}, {}
        self.wait(0)

    def send(self, kind, payload=b""):
        self.last += 1
        self.ours.sendall(message(kind, payload, self.last))
        return self.last

    def wait(self, number):
        """The last message of a request, as its type and its payload."""
        while number not in self.answers:
            _, _, kind, length, more, of = HEADER.unpack(exactly(self.ours, HEADER.size))
            whole = self.parts.pop(of, b"") + exactly(self.ours, length)
            if more > 0:
                self.parts[of] = whole
            elif kind not in (PROGRESS, DELTA, CACHE):
                self.answers[of] = (kind, whole)
        return self.answers.pop(number)

    def ask(self, kind, payload):
        kind, payload = self.wait(self.send(kind, payload))
        if kind == ERROR:
            reader = Reader(payload)
            reader.take("I")
            raise RuntimeError(reader.bytes().decode())
        return payload

    def end(self):
        self.ours.close()
        self.process.wait()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.ours.close()


def generate(prompt, adapter="", seed=0, keep=1, choices="", max_tokens=40):
    return wire.generate(prompt, owner=1, max_tokens=max_tokens, budget=0, temperature=1.0, seed=seed, adapter=adapter,
                         kind="choices" if choices else "", form=choices, keep=keep)


def read_done(payload):
    r = Reader(payload)
    answer = {"content": r.bytes().decode(), "reasoning": r.bytes(), "calls": r.bytes(), "ids": r.ids()}
    r.take("BiiiiQddd")
    r.bytes(), r.bytes()
    answer.update(prompt=r.ids(), logprobs=r.bytes(), experts=r.bytes(), masked=r.ids(), masks=r.bytes(), mask_of=r.ids())
    return answer


def training(name, source="", rank=8, seed=1):
    return (text(name) + text(source) + struct.pack("=ii", rank, 1) + text("attention,experts,router") +
            struct.pack("=fQ", 32.0, seed))


def lesson(name, answers, advantages, loss=CISPO, rate=2e-3, update=1, share=True):
    ids, old, experts, masked, masks, mask_of = [], b"", b"", [], b"", []
    for a in answers:
        masked += [len(ids) + len(a["prompt"]) + at for at in a["masked"]]
        if a["masked"]:
            first = len(masks) // (len(a["masks"]) // (max(a["mask_of"]) + 1))
            mask_of += [first + number for number in a["mask_of"]]
        masks += a["masks"]
        ids += a["prompt"] + a["ids"]
        old += bytes(4 * len(a["prompt"])) + a["logprobs"]
        experts += a["experts"]
    lengths = [len(a["prompt"]) + len(a["ids"]) for a in answers]
    return (text(name) + struct.pack("=BBB", loss, update, 0) +
            struct.pack("=ffffff", 5.0, 0.2, 0.2, 0.0, 0.0, 1.0) + struct.pack("=d", 0.0) +
            struct.pack("=ffffff", rate, 0.9, 0.95, 1e-15, 0.0, 1.0) +
            numbers("i", lengths) + numbers("i", [len(a["prompt"]) for a in answers]) +
            numbers("i", [0 if share else -1] * len(answers)) +
            text(struct.pack(f"={len(advantages)}f", *advantages) if loss == CISPO else b"") + numbers("i", ids) + text("") +
            text(old) + text("") + text(experts) + numbers("i", masked) + text(masks) + numbers("i", mask_of))


def read_learned(payload):
    r = Reader(payload)
    names = "updates dropped loss balance most_load entropy norm difference mean".split()
    result = dict(zip(names, r.take("qBddddddd")))
    result.update(zip("tokens rows learned predicted clipped rerouted seconds bytes".split(), r.take("qqqqqqdQ")))
    result["digest"] = r.bytes().decode()
    return result


def fetch(engine, name, part=1, most=1 << 20):
    data, total = b"", 1
    while len(data) < total:
        r = Reader(engine.ask(FETCH, text(name) + struct.pack("=BQQI", part, 0, len(data), most) + text("")))
        r.bytes()
        _, total, _, _ = r.take("BQQI")
        data += r.bytes()
    return data


def put(engine, name, data, most=300000):
    for at in range(0, len(data), most):
        engine.ask(PUT, text(name) + struct.pack("=BQQI", 0, len(data), at, 0) + text(data[at:at + most]))


PROMPT = "Answer yes or no: the customer gets a voucher. The product is unsafe."


def sample(engine, adapter, n, seed, prompt=PROMPT):
    asked = [engine.send(GENERATE, generate(prompt, adapter, seed * 1000 + i, choices='["yes", "no"]')) for i in range(n)]
    return [read_done(engine.wait(number)[1]) for number in asked]


def advantages(rewards):
    deviation = statistics.stdev(rewards)
    return [(r - statistics.mean(rewards)) / deviation if deviation > 0 else 0.0 for r in rewards]


def learns_a_rule(path):
    """The answer that was the rarer one becomes the usual, from rewards for constrained answers alone."""
    engine = Engine(path)
    engine.ask(TRAINING, training("rule"))
    counts = [a["content"] for a in sample(engine, "", 32, 0)]
    wanted = min(("yes", "no"), key=counts.count)
    before = counts.count(wanted) / 32
    mismatch, rerouted, batch, adapter = [], 0, 0, ""
    for batch in range(1, 16):
        answers = sample(engine, adapter, 16, batch)
        rewards = [float(a["content"] == wanted) for a in answers]
        if sum(rewards) == 16:
            break
        if sum(rewards) == 0:  # nothing to learn from: as training says of such a group
            continue
        learned = read_learned(engine.ask(LESSON, lesson("rule", answers, advantages(rewards))))
        mismatch.append(learned["difference"])
        rerouted += learned["rerouted"]
        report(learned["dropped"] == 0 and learned["rows"] < learned["tokens"] / 4, f"batch {batch} shares its prompt",
               learned)
        adapter = f"rule {batch}"
        engine.ask(SERVE, text(adapter) + text("rule"))
    after = [a["content"] for a in sample(engine, adapter, 32, 99)].count(wanted) / 32
    report(after > max(before + 0.3, 0.8), f'"{wanted}" goes from {before:.0%} to {after:.0%} in {batch} batches')
    report(max(mismatch) < 1e-4 and rerouted == 0,
           f"sampling and training differ by {max(mismatch):.1e} in log-probabilities and by no expert", rerouted)
    engine.end()


def goes_on_after_a_kill(path):
    engine = Engine(path)
    engine.ask(TRAINING, training("t"))
    answers = sample(engine, "", 8, 3)
    lessons = [lesson("t", answers[i:i + 4], [1, -1, 0.5, -0.5]) for i in (0, 4)]
    engine.ask(LESSON, lessons[0])
    kept = fetch(engine, "t", most=100003)
    engine.ask(LESSON, lessons[1])
    undisturbed = fetch(engine, "t")
    engine.send(LESSON, lessons[0])
    engine.kill()
    engine = Engine(path, "--threads", "1")
    put(engine, "kept", kept)
    report(read_learned(engine.ask(TRAINING, training("t", "kept")))["updates"] == 1, "a killed training goes on")
    engine.ask(LESSON, lessons[1])
    report(fetch(engine, "t") == undisturbed, "to the same bits, with other threads")
    engine.end()


def latencies(engine, n):
    took = []
    for i in range(n):
        began = time.monotonic()
        engine.ask(GENERATE, generate("Hello.", seed=i, keep=0, max_tokens=20))
        took.append(time.monotonic() - began)
    return sorted(took)


def answers_beside(path):
    """Requests are answered while lessons last, and not behind them. What they take is told, and not judged: the machine
    may do other things, too."""
    engine = Engine(path)
    engine.ask(TRAINING, training("t"))
    lesson_of_many = lesson("t", sample(engine, "", 8, 3), [1, -1] * 4, share=False)
    latencies(engine, 10)
    alone = latencies(engine, 60)
    # as many lessons as last longer than the requests
    lessons = [engine.send(LESSON, lesson_of_many) for _ in range(400)]
    beside = latencies(engine, 60)
    # lessons save up for their turns: where requests are quick, sixty of them may be answered before one ends
    while len(beside) < 3000 and not any(number in engine.answers for number in lessons):
        beside = sorted(beside + latencies(engine, 60))
    ended = sum(number in engine.answers for number in lessons)
    for number in lessons:
        engine.ours.sendall(frame(CANCEL, b"", 0, number))
    middle, most = (1000 * beside[len(beside) * share // 100] for share in (50, 99))
    told = (f"alone {1000 * alone[30]:.0f} ms (99th percentile {1000 * alone[59]:.0f}), "
            f"beside a training {middle:.0f} ms ({most:.0f}), {ended} lessons meanwhile")
    report(0 < ended < 400, f"requests beside a training: {told}")
    engine.end()


def refuses_nonsense(path):
    engine = Engine(path)
    rng = random.Random(7)
    good = {TRAINING: training("t"), SERVE: text("a") + text("t"), FORGET: b"\1" + text("t"),
            PUT: text("b") + struct.pack("=BQQI", 0, 9, 0, 0) + text("xyz"),
            FETCH: text("t") + struct.pack("=BQQI", 1, 0, 0, 100) + text("")}
    good[LESSON] = lesson("t", sample(engine, "", 2, 1), [1, -1])
    answered = 0
    for kind, payload in good.items():
        for _ in range(60):
            data = bytearray(payload)
            for _ in range(rng.choice((1, 1, 2, 5))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            data = data[:rng.randrange(len(data))] if rng.random() < 0.3 else data
            answered += engine.wait(engine.send(kind, bytes(data)))[0] in (ERROR, LEARNED, BYTES)
    report(answered == 60 * len(good), "each frame that was changed is answered")
    engine.ask(GENERATE, generate("Hello."))
    report(engine.process.poll() is None, "and the engine goes on")
    engine.end()


def main():
    os.environ.setdefault("LC_ALL", "C")
    for case in (learns_a_rule, goes_on_after_a_kill, answers_beside, refuses_nonsense):
        try:
            case(sys.argv[1])
        except (EOFError, OSError, RuntimeError) as error:
            report(False, case.__name__, error)
    print("done")


main()
