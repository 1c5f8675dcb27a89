#!/usr/bin/env python3
"""make_data.py SEED PHASE EXAMPLES FILE - writes so many examples of m1-nano's world as JSON lines, for phase 1 or 2.

The same seed gives the same file.
"""
import json
import sys

import world


def main():
    seed, phase, count = map(int, sys.argv[1:4])
    path = sys.argv[4]
    with open(path, "w", encoding="utf-8") as out:
        for example in world.training_examples(seed, phase, count):
            out.write(json.dumps(example, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
