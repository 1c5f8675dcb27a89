#!/usr/bin/env python3
"""rooms.py [ROOT] - checks the layout of src: who may include whom and name what, and how long things are.

Prints FILE:LINE: what is wrong, and exits with 1 if anything is. `make lint` runs it.
"""
import re
import sys
from pathlib import Path

# Each room, and what its files may include beside their own room: docs/internals.md says what they hold. A room is a
# folder of src; includes point downward only.
ROOMS = {
    "base": "",
    "blocks": "base",
    "files": "base blocks",
    "text": "base files",
    "grammar": "base text",
    "backend": "base blocks",
    "backend/cpu": "base blocks backend",
    "backend/cuda": "base blocks backend kernels",
    "model": "base blocks files text backend",
    "train": "base blocks files text backend model",
    "wire": "base",
    "engine": "base blocks files text grammar backend model train wire",
    "proxy": "base files text grammar backend model wire engine",
    "commands": "base blocks files text grammar backend model train wire engine proxy",
    "gateway": "base text",
    "pg": "base wire",
    "pg/usage": "base wire pg",
    "pg/client": "base wire pg pg/usage",
    "pg/worker": "base wire pg pg/usage",
    "pg/functions": "base text wire pg pg/usage pg/client",
    "pg/jobs": "base wire pg pg/usage pg/client",
    "pg/learning": "base text wire pg pg/usage pg/client pg/jobs",
    "pg/agents": "base wire pg pg/usage pg/client pg/functions pg/jobs",
}
# What puts the library together may know all of it.
COMPOSERS = {"pg/module.c": "pg/usage pg/client pg/worker pg/functions pg/jobs pg/learning"}

# What only some rooms may write, by the first part of their names.
WORDS = [
    (re.compile(r'"[^"]*minimax_m1\.[a-z]'), ("pg", "gateway"),
     "only src/pg names SQL settings: hints name them by key, as {max_context}"),
    (re.compile(r'm1_error_hint\([^"]*"[^"]*(?<![{a-z_])[a-z]+_[a-z_]+(?![}a-z_])'), ("pg",),
     "a hint names a setting by its key in braces, as {max_context}"),
    (re.compile(r"->ops\b"), ("backend", "model", "train"),
     "only src/model, src/train and src/backend know the backend's table of operations"),
]

LONGEST_FILE = 700
LONGEST_FUNCTION = 100
LONGEST_LINE = 120
TAB = 4

INCLUDE = re.compile(r'#\s*include "([^"]+)"')


def room_of(path):
    """The room of a path below src, or of an include: "backend/cpu" of "backend/cpu/cpu.c"."""
    return path.rpartition("/")[0]


class Lint:
    def __init__(self, root):
        self.root = root
        self.src = root / "src"
        self.faults = 0

    def fault(self, path, line, what):
        print(f"{path.relative_to(self.root)}:{line}: {what}")
        self.faults += 1

    def target(self, path, name):
        """What an include names, below src, with "kernels/..." for those; None for PostgreSQL's and the system's."""
        if (self.src / name).exists() or name.startswith("kernels/"):
            return name
        beside = path.parent / name
        return beside.relative_to(self.src).as_posix() if beside.exists() else None

    def check_includes(self, path, lines):
        here = path.relative_to(self.src).as_posix()
        room = room_of(here)
        if room not in ROOMS:
            self.fault(path, 1, f'"src/{room}" is no room that scripts/rooms.py knows')
            return []
        allowed = {room, *ROOMS[room].split(), *COMPOSERS.get(here, "").split()}
        found = []
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            name = match and self.target(path, match[1])
            if match and room.split("/")[0] != "pg" and match[1] in ("postgres.h", "fmgr.h"):
                self.fault(path, number, "only src/pg may include PostgreSQL's headers")
            if not name:
                continue
            found.append((number, name))
            if name != match[1]:
                self.fault(path, number, f'"{match[1]}" is to be included as "{name}"')
            elif room_of(name) not in allowed:
                self.fault(path, number, f'src/{room} may not include "{name}": includes point downward only')
        return found

    def check_words(self, path, lines):
        room = room_of(path.relative_to(self.src).as_posix()).split("/")[0]
        for number, line in enumerate(lines, 1):
            for pattern, rooms, rule in WORDS:
                if room not in rooms and pattern.search(line):
                    self.fault(path, number, rule)

    def check_lengths(self, path, lines):
        if len(lines) > LONGEST_FILE:
            self.fault(path, LONGEST_FILE + 1, f"a file of {len(lines)} lines; at most {LONGEST_FILE}")
        start = None
        for number, line in enumerate(lines, 1):
            width = len(line.expandtabs(TAB))
            if width > LONGEST_LINE:
                self.fault(path, number, f"a line of {width} columns; at most {LONGEST_LINE}")
            if line == "{":
                start = number
            elif line.startswith("}") and start is not None:
                if number - start - 1 > LONGEST_FUNCTION:
                    self.fault(path, start, f"a function of {number - start - 1} lines; at most {LONGEST_FUNCTION}")
                start = None

    def check_cycles(self, graph):
        """Files of different rooms never include each other, directly or by way of others."""
        state = {}

        def visit(name, trail):
            state[name] = "open"
            for number, target in graph.get(name, ()):
                if state.get(target) == "open":
                    circle = trail[trail.index(target):] if target in trail else [target]
                    if len({room_of(n) for n in circle}) > 1:
                        self.fault(self.src / name, number, "includes go in a circle: " + ", ".join(circle))
                elif target not in state:
                    visit(target, trail + [target])
            state[name] = "done"

        for name in sorted(graph):
            if name not in state:
                visit(name, [name])

    def run(self):
        graph = {}
        for path in sorted(self.src.rglob("*.[ch]")):
            lines = path.read_text(encoding="utf-8").splitlines()
            graph[path.relative_to(self.src).as_posix()] = self.check_includes(path, lines)
            self.check_words(path, lines)
            self.check_lengths(path, lines)
        for path in sorted((self.root / "kernels").iterdir()):
            self.check_lengths(path, path.read_text(encoding="utf-8").splitlines())
        self.check_cycles(graph)
        return self.faults


if __name__ == "__main__":
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    sys.exit(1 if Lint(root).run() else 0)
