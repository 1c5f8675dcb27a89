#!/usr/bin/env python3
"""make_data.py SEED PHASE EXAMPLES FILE - writes so many examples of m1-nano's world as JSON lines, for phase 1 to 3.

The same seed gives the same file.
"""
import json
import sys

import world


def main():
    seed, phase, count = map(int, sys.argv[1:4])
    path = sys.argv[4]
    r = world.source(seed, "train")
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(count):
            out.write(json.dumps(world.any_example(r, phase), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
