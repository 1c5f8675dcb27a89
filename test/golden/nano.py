#!/usr/bin/env python3
"""The bundled m1-nano against the table of its README: of the first 20 examples of each row, nearly as many are right.

nano.py ENGINE: prints lines as golden.py does. Standard library only.
"""
import re
import sys
from pathlib import Path

from golden import report

MODEL = "models/m1-nano"
COUNT, OF = 20, 200
SPARE = 2  # what is rounded otherwise by another instruction set may be another letter

sys.path.insert(0, "tools/nano")
import evaluate  # noqa: E402
import world  # noqa: E402


def main():
    table = dict(re.findall(r"^\| (\w+) \|.*\| (\d+) \|$", Path(MODEL, "README.md").read_text(), re.MULTILINE))
    report(set(world.TASKS) <= table.keys(), "the table has every task", str(table))
    seen = evaluate.seen_in_training(150000)
    for task in world.TASKS:
        right = evaluate.right_answers(sys.argv[1], MODEL, task, COUNT, seen)
        report(right >= int(table[task]) * COUNT / OF - SPARE, f"m1-nano {task}", f"{right} of {COUNT}")
    print("done")


main()
