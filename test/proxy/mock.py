"""Servers of a model, as they look from outside: each answers in one of the dialects of src/proxy, from a script instead
of a model, and misbehaves on purpose. Standard library only.

The fields are those of the servers' own documentation and sources: vLLM's /v1/completions (entrypoints/openai/protocol:
token_ids, return_tokens_as_token_ids, structured_outputs, prompt_logprobs, cache_salt), llama.cpp's /completion
(tools/server/README: tokens, tokens_predicted, timings.cache_n, completion_probabilities), SGLang's /generate (native
API: output_ids, meta_info), and OpenAI's chat completions.

A script is a list of texts. The reply to a prompt that ends in the first k tokens of the first one is the rest of it; to a
prompt whose reasoning has just been closed, the first one of `answers`. Under a grammar it is the first of all that the
grammar allows. What a request does not ask for does not come: ids, probabilities, timings, an end at the end of turn.
"""
import json
import math
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gbnf


class Mock:
    """A server on a port of its own. `faults` is a list of names that requests take from, one each; see Handler."""

    def __init__(self, dialect, tokens, eos, vocab, scripts=(), answers=(), version="0.11.0", context=32768, pieces=None, key=None,
                 adapters=(), certificate=None, tokenizes=None, pause=0.0, port=0, cached=0, likely=-0.5,
                 name="the-model", special=None):
        self.dialect, self.tokens, self.eos, self.vocab = dialect, tokens, eos, vocab
        self.scripts, self.answers, self.version, self.context = list(scripts), list(answers), version, context
        self.pieces, self.key, self.adapters, self.special = pieces, key, adapters, special
        self.tokenizes, self.name, self.elsewhere = tokenizes or tokens, name, ""
        self.pause, self.cached, self.likely = pause, cached, likely
        self.faults, self.requests, self.times, self.closed = [], [], [], 0
        self.asked = 0  # how often it was asked what it is
        self.slow_questions, self.left_questions = 0.0, 0  # seconds that they take; those that nobody waited for
        self.retry_after = 1  # seconds
        self.refusals = {}  # of questions: HTTP statuses by their paths
        self.now = self.most = 0  # streams at the same time
        self.lock = threading.Lock()
        self.connections = set()
        mock = self

        class Bound(Handler):
            server_mock = mock

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request, client_address):
                pass

        self.http = Server(("127.0.0.1", port), Bound)
        self.scheme = "http"
        if certificate:
            context_ = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context_.load_cert_chain(*certificate)
            self.http.socket = context_.wrap_socket(self.http.socket, server_side=True)
            self.scheme = "https"
        self.port = self.http.server_address[1]
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        """As a process that is killed: no connection outlives it."""
        self.http.shutdown()
        self.http.server_close()
        with self.lock:
            connections = list(self.connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def take_fault(self):
        with self.lock:
            return self.faults.pop(0) if self.faults else None

    # ---- what the script says ----

    def rest(self, prompt, text):
        """The tokens of the text that the prompt does not end in."""
        ids = self.tokens(text) + [self.eos]
        for k in range(min(len(ids) - 1, len(prompt)), 0, -1):
            if prompt[-k:] == ids[:k]:
                return ids[k:]
        return ids

    def reply(self, prompt, grammar):
        closed = self.text([i for i in prompt[-12:] if i in self.pieces]).endswith("</think>\n\n")
        if grammar is None:
            return self.rest(prompt, (self.answers if closed and self.answers else self.scripts)[0])
        parsed = gbnf.parse(grammar)
        for text in self.scripts + self.answers:
            rest = self.rest(prompt, text)
            if gbnf.matches(parsed, self.text(rest[:-1])):
                return rest
        return [self.eos]

    def text(self, ids):
        return b"".join(self.pieces.get(i, b"") for i in ids).decode("utf-8", "replace")

    def since(self, *version):
        return tuple(int(n) for n in self.version.split(".")[:2]) >= version

    def logprob(self, i):
        return -0.1 * (i % 7 + 1)


# Ways of writing the lines of an event, each as servers may.
SPELLINGS = {
    "ends of line of two bytes": lambda text: f"data: {text}\r\n\r\n",
    "carriage returns": lambda text: f"data: {text}\r\r",
    "no empty lines": lambda text: f"data: {text}\n",
    "several lines": lambda text: "".join(f"data:{line}\n" for line in indented(text)) + "\n",
    "several lines of two bytes": lambda text: "".join(f"data: {line}\r\n" for line in indented(text)) + "\r\n",
    "remarks": lambda text: f": ping\n\nevent: message\nid: 5\ndata: {text}\nretry: 10\n\n",
}


def indented(text):
    return json.dumps(json.loads(text), indent=1).splitlines() if text.startswith("{") else [text]


class Handler(BaseHTTPRequestHandler):
    """Faults: 429 and 503 (with Retry-After: 1), other HTTP statuses, reset (before an answer), half (a reply without its end),
    slow (a pause of a second before anything), silent (nothing at all for long), nonsense (events that are no JSON),
    breaks (tokens that break any constraint), unknown (a token that the model does not have), special (a control token in front), error (an error event),
    redirect (to the url `elsewhere`), error text (one that is no object), base_resp (an error of hosted MiniMax, with status 200), detail (a refusal as FastAPI
    words it), endless (a refusal that never ends), stream (though one answer was asked for), lingers (a reply whose connection stays open), broken end (one that
    breaks off behind the last event), and the keys of SPELLINGS."""

    protocol_version = "HTTP/1.1"
    server_mock = None
    fault = asked = None

    def setup(self):
        super().setup()
        with self.mock.lock:
            self.mock.connections.add(self.connection)

    def finish(self):
        with self.mock.lock:
            self.mock.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def log_message(self, *arguments):
        pass

    @property
    def mock(self):
        return self.server_mock

    def answer(self, value, status=200, headers=()):
        body = json.dumps(value).replace("-Infinity", "-1e999").encode()  # which is JSON
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers:
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message, headers=()):
        self.answer({"error": {"message": message, "type": "test", "code": status}}, status, headers)

    def is_let_in(self):
        if self.mock.key and self.headers.get("Authorization") != "Bearer " + self.mock.key:
            self.refuse(401, "no key")
            return False
        return True

    def is_left(self):
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def is_refused(self):
        status = self.mock.refusals.get(self.path)
        if status:
            self.refuse(status, "the test says so", [("Retry-After", "1")])
        return status

    def do_GET(self):
        mock = self.mock
        mock.asked += self.path == "/v1/models"
        if mock.slow_questions:
            time.sleep(mock.slow_questions)
            if self.is_left():
                mock.left_questions += 1
                return
        if not self.is_let_in() or self.is_refused():
            return
        owner = {"vllm": "vllm", "llama.cpp": "llamacpp", "sglang": "sglang"}.get(mock.dialect, "system")
        if self.path == "/v1/models":
            entry = {"id": mock.name, "object": "model", "owned_by": owner, "parent": None}
            if mock.dialect in ("vllm", "sglang"):
                entry["max_model_len"] = mock.context
            if mock.dialect == "llama.cpp":
                entry["meta"] = {"n_vocab": mock.vocab, "n_params": 1000, "size": 2000}
            adapters = [{"id": name, "owned_by": owner, "parent": mock.name} for name in mock.adapters
                        if mock.dialect != "llama.cpp"]
            self.answer({"object": "list", "data": [entry, *adapters]})
        elif self.path == "/props" and mock.dialect == "llama.cpp":
            self.answer({"default_generation_settings": {"n_ctx": mock.context}, "total_slots": 4,
                         "build_info": mock.version})
        elif self.path == "/version" and mock.dialect == "vllm":
            self.answer({"version": mock.version})
        elif self.path == "/get_server_info" and mock.dialect == "sglang":
            self.answer({"version": mock.version})
        else:
            self.refuse(404, "not found")

    def do_POST(self):
        mock = self.mock
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_let_in():
            return
        if self.path == "/tokenize" and self.is_refused():
            return
        if self.path == "/tokenize" and mock.dialect != "openai":
            self.answer({"tokens": mock.tokenizes(request.get("content", request.get("prompt")))})
            return
        with mock.lock:
            mock.requests.append(request)
            mock.times.append(time.monotonic())
        fault = mock.take_fault()
        if fault in ("429", "503"):
            self.refuse(int(fault), "busy", [("Retry-After", str(mock.retry_after))])
        elif fault and fault.isdigit():
            self.refuse(int(fault), "the test says so")
        elif fault == "redirect":
            self.refuse(307, "the test says so", [("Location", mock.elsewhere + self.path)])
        elif fault == "detail":
            self.answer({"detail": "the test says so"}, 422)
        elif fault == "base_resp":
            self.answer({"base_resp": {"status_code": 1004, "status_msg": "the test says so"}})
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
        else:
            try:
                self.work(request, fault)
            except (BrokenPipeError, ConnectionResetError):
                with mock.lock:
                    mock.closed += 1
                self.close_connection = True

    def work(self, request, fault):
        paths = {"vllm": "/v1/completions", "llama.cpp": "/completion", "sglang": "/generate",
                 "openai": "/v1/chat/completions"}
        if fault == "slow":
            time.sleep(1)
        if fault == "silent":
            time.sleep(30)
        if fault == "endless":
            self.refuse_for_ever()
        if fault == "stream":  # whatever was asked for
            self.stream(request, fault)
            return
        if self.path != paths[self.mock.dialect]:
            self.refuse(404, "not found")
        elif request.get("stream"):
            with self.mock.lock:
                self.mock.now += 1
                self.mock.most = max(self.mock.most, self.mock.now)
            try:
                self.stream(request, fault)
            finally:
                with self.mock.lock:
                    self.mock.now -= 1
        elif self.mock.dialect == "llama.cpp" and "logit_bias" not in request:
            self.whole(request)
        else:
            self.score(request)

    def whole(self, request):
        """All tokens of a reply, those inside of a character and the end of turn among them."""
        mock = self.mock
        ids = mock.reply(self.prompt_of(request), self.grammar_of(request))[:request["n_predict"]]
        self.answer({"content": mock.text(ids), "tokens": ids if request.get("return_tokens") else [], "stop": True, "tokens_predicted": len(ids),
                     "stop_type": "eos" if ids[-1:] == [mock.eos] else "limit", "timings": {"cache_n": mock.cached}})

    # ---- streams ----

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, data):
        text = data if isinstance(data, str) else json.dumps(data)
        self.chunk(SPELLINGS.get(self.fault, lambda text: f"data: {text}\n\n")(text).encode())

    def refuse_for_ever(self):
        self.send_response(400)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.chunk(b"the test says so " * 1000)
            time.sleep(0.001)

    def stream(self, request, fault):
        mock = self.mock
        self.fault, self.asked = fault, request
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if mock.dialect == "openai":
            ids = mock.tokens(mock.scripts[0])
        else:
            ids = mock.reply(self.prompt_of(request), self.grammar_of(request))
        if fault == "breaks":
            ids = mock.tokens("~~~~") + ids
        if fault == "special":
            ids = [mock.special] + ids
        if fault == "unknown":
            ids = [mock.vocab + 5] + ids
        most = self.most_of(request)
        ends = self.ends_of(request)
        if mock.dialect != "openai" and not ends.intersection(ids):
            ids = ids + mock.tokens("a") * (most - len(ids))
        cut = fault == "half" and max(1, len(ids) // 2)
        if fault == "nonsense":
            self.event("{not json")
        if fault in ("error", "error text"):
            self.event({"error": {"message": "out of luck", "code": 500} if fault == "error" else "out of luck"})
            ids = []
        for i, token in enumerate(ids[:most]):
            if cut and i == cut:
                self.close_connection = True
                return
            time.sleep(mock.pause)
            last = token in ends or (mock.dialect == "openai" and i + 1 == len(ids))
            for part in self.events_of(ids, i, "stop" if last else "length" if i + 1 == most else None):
                self.event(part)
            if last:
                break
        if mock.dialect in ("vllm", "openai") and request.get("stream_options", {}).get("include_usage"):
            self.event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": len(ids),
                                                 "prompt_tokens_details": {"cached_tokens": mock.cached}}})
        if fault == "lingers":
            time.sleep(30)
        if fault in ("lingers", "broken end"):
            self.close_connection = True
            return
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def prompt_of(self, request):
        return request["input_ids"] if self.mock.dialect == "sglang" else request["prompt"]

    def most_of(self, request):
        if self.mock.dialect == "sglang":
            return request["sampling_params"]["max_new_tokens"]
        return request.get("n_predict", request.get("max_tokens"))

    def ends_of(self, request):
        """The tokens that end a reply: those that are asked for, and the model's own."""
        if self.mock.dialect in ("llama.cpp", "openai"):
            return {self.mock.eos}
        asked = request.get("sampling_params", request)
        return set(asked.get("stop_token_ids", ())) | (set() if asked.get("ignore_eos") else {self.mock.eos})

    def grammar_of(self, request):
        if self.mock.dialect == "sglang":
            return request["sampling_params"].get("ebnf")
        if self.mock.dialect == "llama.cpp":
            return request.get("grammar")
        if self.mock.since(0, 11):
            return request.get("structured_outputs", {}).get("grammar")
        return request.get("guided_grammar")

    def events_of(self, ids, i, reason):
        mock, token = self.mock, ids[i]
        text = "" if token == mock.eos or token >= mock.vocab else mock.text([token])
        if mock.dialect == "vllm":
            choice = {"index": 0, "text": text, "finish_reason": reason, "stop_reason": None, "logprobs": None}
            if "logprobs" in self.asked:
                named = f"token_id:{token}" if self.asked.get("return_tokens_as_token_ids") else text
                choice["logprobs"] = {"tokens": [named], "token_logprobs": [mock.likely]}
            if self.asked.get("return_token_ids") and mock.since(0, 11):  # 0.10.2, but nobody tells
                choice["token_ids"] = [token]
            return [{"id": "x", "object": "text_completion", "choices": [choice], "usage": None}]
        if mock.dialect == "sglang":
            meta = {"completion_tokens": i + 1, "cached_tokens": mock.cached,
                    "finish_reason": {"type": reason} if reason else None}
            return [{"text": mock.text([t for t in ids[:i + 1] if t < mock.vocab and t != mock.eos]),
                     "output_ids": ids[:i + 1], "meta_info": meta}]
        if mock.dialect == "openai":
            return ([{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}] +
                    ([{"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}] if reason else []))
        return self.llama_events(ids, i, reason)

    def llama_events(self, ids, i, reason):
        """A token that ends inside of a character is held back, and only the last one of a character is sent."""
        mock = self.mock
        timings = {"cache_n": mock.cached if self.asked.get("cache_prompt", True) else 0, "prompt_n": 1, "predicted_n": i + 1}
        tokens = [ids[i]] if self.asked.get("return_tokens") else []
        with_timings = {"timings": timings} if self.asked.get("timings_per_token") else {}
        parts = []
        if i == 0 and self.asked.get("return_progress"):
            parts.append({"content": "", "tokens": [0], "stop": False, "tokens_predicted": 0,
                          "prompt_progress": {"total": 10, "cache": 0, "processed": 5, "time_ms": 1}})
        if ids[i] != mock.eos:
            begin = i
            while begin > 0 and not is_whole(self.end_of(ids[:begin])):
                begin -= 1
            if ids[i] >= mock.vocab or is_whole(self.end_of(ids[:i + 1])):
                known = [t for t in ids[begin:i + 1] if t < mock.vocab]
                parts.append({"content": mock.text(known), "tokens": tokens, "stop": False, "tokens_predicted": i + 1,
                              **with_timings})
        if reason:
            parts.append({"content": "", "tokens": [], "stop": True, "tokens_predicted": i + 1,
                          "stop_type": "eos" if reason == "stop" else "limit", "timings": timings})
        return parts

    def end_of(self, ids):
        """At least the last four bytes, if there are so many, as each token but the special ones has one."""
        return b"".join(self.mock.pieces.get(t, b"") for t in ids[-8:])

    # ---- probabilities ----

    def score(self, request):
        mock = self.mock
        prompt = self.prompt_of(request)
        if mock.dialect == "vllm":
            all_of = "prompt_logprobs" in request and [None] + [{str(t): {"logprob": mock.logprob(t), "rank": 1}} for t in prompt[1:]]
            self.answer({"choices": [{"index": 0, "text": "", "prompt_logprobs": all_of or None}]})
        elif mock.dialect == "sglang":
            start = request.get("logprob_start_len", -1) if request.get("return_logprob") else len(prompt)
            start = start if start >= 0 else len(prompt)
            self.answer({"text": "", "meta_info": {"input_token_logprobs": [
                [mock.logprob(t) if i else None, t, None] for i, t in enumerate(prompt[start:])]}})
        else:
            token = request["logit_bias"][0][0]
            told = [{"id": token, "logprob": mock.logprob(token)}] if request.get("n_probs") else []
            self.answer({"content": "", "completion_probabilities": told})


def is_whole(data):
    """Whether it ends with a whole character of UTF-8, or with what is none."""
    for n in range(1, min(4, len(data)) + 1):
        byte = data[-n]
        if byte & 0xc0 != 0x80:
            return n >= (1 if byte < 0x80 else 2 if byte < 0xe0 else 3 if byte < 0xf0 else 4)
    return True


def normalised(logprobs):
    total = math.log(sum(math.exp(x) for x in logprobs))
    return [x - total for x in logprobs]
