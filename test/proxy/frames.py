"""An engine process and the frames that it is spoken to by: what the worker does, for tests. Standard library only.

The frames and messages are those of src/wire.
"""
import os
import select
import socket
import struct
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))

from wire import DELTA, DONE, ERROR, GENERATE, HEADER, READY, TEXT, TOKENS, VECTOR, Reader, generate, message

FINISH = ["stop", "length", "thinking_budget", "loop"]
STATUS = ["ok", "invalid_argument", "unsupported", "not_found", "io", "corrupt", "no_memory", "context_overflow",
          "overloaded", "cancelled", "timeout", "unavailable", "device", "internal", "over_quota", "exists"]


def read_done(data):
    r = Reader(data)
    done = {"content": r.text(), "reasoning": r.text(), "calls": r.text(), "ids": r.ids()}
    done["finish"] = FINISH[r.take("B")]
    (done["prompt_tokens"], done["cached"], done["reasoning_tokens"], done["tokens"], done["seed"], done["queue_ms"],
     done["prefill_ms"], done["decode_ms"]) = r.take("iiiiQddd")
    logprobs = r.bytes()
    done["logprobs"] = list(struct.unpack(f"={len(logprobs) // 8}d", logprobs))
    return done


def read_error(data):
    r = Reader(data)
    return {"status": STATUS[r.take("I")], "message": r.text(), "detail": r.text(), "hint": r.text()}


class Engine:
    """`ENGINE COMMAND --fd N ARGUMENTS`, and what it says."""

    def __init__(self, engine, command, *arguments, stderr=subprocess.PIPE):
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.process = subprocess.Popen([engine, command, "--fd", str(theirs.fileno()), *arguments],
                                        pass_fds=[theirs.fileno()], stderr=stderr)
        theirs.close()
        self.input = b""
        self.last = 0
        self.events = {}  # by request: [(type, payload)]
        self.begun = {}  # by request: what has come of a long message
        self.ready = None

    def send(self, kind, request, payload=b""):
        self.socket.sendall(message(kind, payload, request))

    def ask(self, kind, payload):
        self.last += 1
        self.events[self.last] = []
        self.send(kind, self.last, payload)
        return self.last

    def generate(self, **request):
        return self.ask(GENERATE, generate(**request))

    def pump(self, seconds):
        """Takes what comes within so many seconds. False at the end of the stream."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return True
        data = self.socket.recv(1 << 20)
        self.input += data
        while len(self.input) >= HEADER.size:
            _, _, kind, length, more, request = HEADER.unpack_from(self.input)
            if len(self.input) < HEADER.size + length:
                break
            payload = self.input[HEADER.size:HEADER.size + length]
            self.input = self.input[HEADER.size + length:]
            payload = self.begun.pop(request, b"") + payload
            if more:
                self.begun[request] = payload
                continue
            if kind == READY:
                r = Reader(payload)
                self.ready = {"name": r.text(), "architecture": r.text(), "device": r.text()}
                (self.ready["parameters"], self.ready["bytes"], self.ready["layers"], self.ready["experts"],
                 self.ready["context"], self.ready["vocab"]) = r.take("QQiiii")
            else:
                self.events.setdefault(request, []).append((kind, payload))
        return bool(data)

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the engine does not answer")
            if not self.pump(0.05):
                return condition()
        return True

    def start(self, seconds=60):
        """READY, or the error that it does not start with."""
        self.until(lambda: self.ready or self.events.get(0), seconds)
        return self.ready or read_error(self.events[0][-1][1])

    def end_of(self, request):
        for kind, payload in self.events[request]:
            if kind == ERROR:
                return read_error(payload)
            if kind == DONE:
                return read_done(payload)
            if kind in (TOKENS, TEXT, VECTOR):
                return Reader(payload).ids() if kind == TOKENS else Reader(payload).bytes()
        return None

    def wait(self, request, seconds=60):
        self.until(lambda: self.end_of(request), seconds)
        end = self.end_of(request)
        if isinstance(end, dict) and "tokens" in end:
            end["streamed"] = self.streamed(request)
        return end

    def streamed(self, request):
        parts = [b"", b""]
        for kind, payload in self.events[request]:
            if kind == DELTA:
                parts[payload[0]] += Reader(payload[1:]).bytes()
        return [part.decode() for part in parts]

    def run(self, seconds=60, **request):
        return self.wait(self.generate(**request), seconds)

    def stop(self):
        """Its log."""
        self.socket.close()
        log = self.process.stderr.read().decode() if self.process.stderr else ""
        self.process.wait(10)
        return log
