#!/usr/bin/env python3
"""Runs the examples of Markdown files and compares their results with what the files show.

check.py FILE... [--update]: each file gets a database of its own, with the extension, on the server that the
environment (PGHOST, ...) names. Its ```sql blocks are given to one psql session after the other; a ```text block right
after one is the expected output. Trailing blanks do not count. With --update, the output blocks are rewritten instead.
Standard library only.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"```sql\n(.*?)```\n(?:\n?```text\n(.*?)```\n)?", re.S)
# The examples show what the likeliest answer is; a user sees other words at temperature 1.
PREAMBLE = "SET minimax_m1.temperature = 0;\n"


def psql(database, sql, stop="0"):
    return subprocess.run(["psql", "-X", "-q", "-v", f"ON_ERROR_STOP={stop}", "-P", "pager=off", "-d", database],
                          input=sql, capture_output=True, text=True, timeout=120)


def run(database, sql):
    done = psql(database, PREAMBLE + sql)
    lines = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""


def make_database(path):
    name = path.stem.lower()
    for database, sql in ((os.environ["PGDATABASE"], f"CREATE DATABASE {name}"),
                          (name, "CREATE EXTENSION minimax_m1")):
        done = psql(database, sql, stop="1")
        if done.returncode:
            sys.exit(f"{path}: {sql}: {done.stderr}")
    return name


def update(path, database):
    def rewrite(match):
        got = run(database, match.group(1))
        return f"```sql\n{match.group(1)}```\n" + (f"```text\n{got}```\n" if got else "")
    path.write_text(BLOCK.sub(rewrite, path.read_text(encoding="utf-8")), encoding="utf-8")


def examples(path):
    """(name, sql, what is expected) of each."""
    text = path.read_text(encoding="utf-8")
    for number, match in enumerate(BLOCK.finditer(text), 1):
        line = text.count("\n", 0, match.start()) + 1
        yield f"example {number} of {path}, line {line}", match.group(1), match.group(2) or ""


def check(path, database):
    for name, sql, want in examples(path):
        got = run(database, sql)
        print(f"{'ok' if got == want else 'not ok'} {name}")
        if got != want:
            print(f"# expected:\n{want}# got:\n{got}")


def main():
    handle = update if "--update" in sys.argv else check
    for name in sys.argv[1:]:
        if name != "--update":
            path = Path(name)
            handle(path, make_database(path))
    print("done")


if __name__ == "__main__":
    main()
