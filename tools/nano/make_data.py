#!/usr/bin/env python3
"""make_data.py SEED EXAMPLES FILE - writes so many examples of m1-nano's world as JSON lines.

The same seed gives the same file.
"""
import json
import sys

import world


def main():
    seed, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    r = world.source(seed, "train")
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(count):
            out.write(json.dumps(world.example(r), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
