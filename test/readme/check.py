#!/usr/bin/env python3
"""Runs the examples of a Markdown file and compares their results with what the file shows.

check.py FILE [--update]: every ```sql block is given to one psql session after the other, in the database that
the environment (PGHOST, PGDATABASE, ...) names; a ```text block right after it is the expected output. Trailing
blanks do not count. With --update, the output blocks are rewritten instead. Standard library only.
"""
import re
import subprocess
import sys

BLOCK = re.compile(r"```sql\n(.*?)```\n(?:\n?```text\n(.*?)```\n)?", re.S)
# The examples show what the likeliest answer is; a user sees other words at temperature 1.
PREAMBLE = "SET minimax_m1.temperature = 0;\n"


def run(sql):
    done = subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=0", "-P", "pager=off"], input=PREAMBLE + sql,
                          capture_output=True, text=True, timeout=120)
    lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""


def main():
    path = sys.argv[1]
    with open(path) as f:
        text = f.read()
    if "--update" in sys.argv:
        def rewrite(match):
            got = run(match.group(1))
            return f"```sql\n{match.group(1)}```\n" + (f"```text\n{got}```\n" if got else "")
        with open(path, "w") as f:
            f.write(BLOCK.sub(rewrite, text))
        return
    for number, match in enumerate(BLOCK.finditer(text), 1):
        got = run(match.group(1))
        want = match.group(2) or ""
        line = text.count("\n", 0, match.start()) + 1
        print(f"{'ok' if got == want else 'not ok'} example {number} at line {line}")
        if got != want:
            print(f"# expected:\n{want}# got:\n{got}")
    print("done")


main()
