"""The tokenizer of the bundled model, for servers that are none: ids of texts by the engine, and the bytes of ids.
Standard library only."""
import json
import threading

from frames import Engine
from wire import TOKENIZE, words as wire_words


def byte_letters():
    """The byte that each letter of a vocabulary's pieces stands for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class Words:
    def __init__(self, engine, model):
        with open(f"{model}/tokenizer.json", encoding="utf-8") as f:
            data = json.load(f)
        letters = byte_letters()
        self.pieces = {i: bytes(letters[c] for c in piece) for piece, i in data["model"]["vocab"].items()}
        self.pieces |= {a["id"]: a["content"].encode() for a in data["added_tokens"] if not a["special"]}
        self.eos = next(a["id"] for a in data["added_tokens"] if a["content"] == "<end_of_sentence>")
        self.special, self.spelling = next((a["id"], a["content"]) for a in data["added_tokens"]
                                           if a["special"] and a["id"] != self.eos)
        with open(f"{model}/config.json", encoding="utf-8") as f:
            self.vocab = json.load(f)["vocab_size"]
        self.engine = Engine(engine, "serve", "--model", model, "--device", "cpu", "--threads", "1")
        self.engine.start()
        self.known = {}
        self.lock = threading.Lock()  # servers ask from their threads

    def tokens(self, text):
        with self.lock:
            if text and text not in self.known:
                self.known[text] = self.engine.wait(self.engine.ask(TOKENIZE, wire_words(text)))
            return list(self.known.get(text, ()))
