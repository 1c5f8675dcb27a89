#!/usr/bin/env python3
"""serve.py ENGINE PORT [other | refusing]: a mock of vLLM that has the bundled model's words, or other ones, or refuses all requests
as one that was started under another name, until it is killed or whoever started it is gone.
Prints "ready"."""
import os
import sys
import time

from mock import Mock
from words import Words

parent = os.getppid()
MODEL = os.path.join(os.path.dirname(__file__), "../../models/m1-nano")
words = Words(sys.argv[1], MODEL)
server = Mock("vllm", words.tokens, words.eos, words.vocab, ["<think>\nA greeting.\n</think>\n\nHello there."],
              ["Hello there.", "no"], pieces=words.pieces, port=int(sys.argv[2]),
              adapters=["poet"], tokenizes=(lambda text: [1, 2, 3]) if "other" in sys.argv[3:] else None)
if "refusing" in sys.argv[3:]:
    server.faults = ["404"] * 100000
print("ready", flush=True)
while os.getppid() == parent:
    time.sleep(0.5)
os._exit(0)
