#!/usr/bin/env python3
"""check.py - the layout of src, and whether scripts/rooms.py would notice if it were broken.

Prints a line "ok ..." or "not ok ..." per case, with what is wrong below it, and "done" at the end. Standard library
only.
"""
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONG_FUNCTION = "\n\nstatic void\nlong_function(void)\n{\n" + "\t;\n" * 101 + "}\n"

# What is planted: a case, files with what is appended to each, and what must be said of it.
PLANTS = [
    ("an include that points upward", {"src/base/buf.c": '#include "model/model.h"\n'},
     'src/base may not include "model/model.h"'),
    ("includes in a circle",
     {"src/base/buf.h": '#include "wire/frame.h"\n', "src/wire/frame.h": '#include "base/buf.h"\n'},
     "includes go in a circle"),
    ("a function of 101 lines", {"src/base/buf.c": LONG_FUNCTION}, "a function of 101 lines"),
    ("a line of 121 columns", {"kernels/m1k.h": "// " + "x" * 118 + "\n"}, "a line of 121 columns"),
    ("a setting without braces in a hint", {"src/base/buf.c": '\tm1_error_hint(err, "Raise max_context.");\n'},
     "by its key in braces"),
    ("an unknown room", {"src/attic/trunk.c": "int trunk;\n"}, '"src/attic" is no room'),
]


def rooms(root):
    return subprocess.run([sys.executable, ROOT / "scripts/rooms.py", root], capture_output=True, text=True, timeout=60)


def report(ok, name, output):
    print(("ok " if ok else "not ok ") + name + ("" if ok else "\n" + output), flush=True)


def check_plant(name, files, expected):
    with tempfile.TemporaryDirectory() as folder:
        for room in ("src", "kernels"):
            shutil.copytree(ROOT / room, Path(folder, room), ignore=shutil.ignore_patterns("*.o"))
        for file, text in files.items():
            path = Path(folder, file)
            path.parent.mkdir(exist_ok=True)
            with open(path, "a", encoding="utf-8") as f:
                f.write(text)
        run = rooms(folder)
        said = any(line.startswith(tuple(files)) and expected in line for line in run.stdout.splitlines())
        report(run.returncode == 1 and said, f"{name} is noticed, and where", run.stdout + run.stderr)


def main():
    run = rooms(ROOT)
    report(run.returncode == 0, "the layout of src", run.stdout + run.stderr)
    for plant in PLANTS:
        check_plant(*plant)
    print("done")


main()
