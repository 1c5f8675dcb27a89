#!/usr/bin/env python3
"""Compares what docs/ says with the code, where that can be compared.

facts.py [ROOT]: what stands in backticks in docs/internals.md is there: paths (* for any part of a name), and single
words such as functions, types and members, which occur somewhere in the code. Its table of rooms is the one of
scripts/rooms.py. Each room has a README, which names its .c files and none that is not there. docs/settings.md has a row
for each setting of src/pg/settings.c, and for no other. Standard library only.
"""
import importlib.util
import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # of scripts/rooms.py

FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
QUOTED = re.compile(r"`([^`\n]+)`")
WORD = re.compile(r"\w+")
# a path has a folder or an ending that files here have; anything else is code or a command
PATH = re.compile(r"(?:[\w.*-]+/)+[\w.*-]*|[\w.*-]+\.(?:c|h|cu|cuh|pl|py|sh|mk|md|sql|spec|out)|Makefile")
ROW = re.compile(r"^\| ([\w/]+) \| [^|]+ \| ([\w/, ]*)\|$", re.M)
CODE = ["src", "kernels", "sql", "test", "scripts", "mk", "expected", "Makefile", "minimax_m1.control"]
SOURCE = {".c", ".h", ".cu", ".cuh", ".sql", ".pl", ".pm", ".py", ".sh", ".mk", ".cpp", ".control", ""}


def words_of_code(root):
    words = set()
    for name in CODE:
        top = root / name
        for path in [top] if top.is_file() else top.rglob("*"):
            # not this file, and not what was built beside the sources
            if path.is_file() and path.suffix in SOURCE and path.resolve() != Path(__file__).resolve():
                words.update(WORD.findall(path.read_text(encoding="utf-8", errors="replace")))
    return words


def is_there(word, words):
    """A word of the code; or a prefix of some, where it ends with an underscore."""
    return word in words or word.endswith("_") and any(other.startswith(word) for other in words)


def path_exists(root, name):
    return any(next(folder.glob(name.rstrip("/")), None) for folder in (root, root / "src", root / "test"))


def unknown_names(root, text):
    words = words_of_code(root)
    for quoted in dict.fromkeys(QUOTED.findall(FENCE.sub("", text))):
        if PATH.fullmatch(quoted):
            if not path_exists(root, quoted):
                yield quoted, "there is no such file"
        elif re.fullmatch(r"[\w.>-]+(\(\))?", quoted):
            missing = [word for word in WORD.findall(quoted) if not is_there(word, words)]
            if missing:
                yield quoted, f"nothing in the code is called {', '.join(missing)}"


def rooms_of(root):
    spec = importlib.util.spec_from_file_location("rooms", root / "scripts" / "rooms.py")
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    return rooms.ROOMS


def room_faults(root, text):
    rooms = rooms_of(root)
    section = re.search(r"^## Rooms$.*?(?=^## )", text, re.M | re.S)[0]
    table = {name: set(re.findall(r"[\w/]+", allowed)) for name, allowed in ROW.findall(section) if name != "room"}
    for name in sorted(table.keys() | rooms.keys()):
        here, there = table.get(name), rooms.get(name)
        if here is None or there is None or here != set(there.split()):
            yield name, f"the table says {here}, scripts/rooms.py says {there}"


def readme_faults(root):
    """A file is named as such, by its header, or by a pattern."""
    for room in rooms_of(root):
        folder = root / "src" / room
        readme = folder / "README.md"
        if not readme.exists():
            yield f"src/{room}", "it has no README.md"
            continue
        named = [name for name in QUOTED.findall(readme.read_text(encoding="utf-8")) if PATH.fullmatch(name)]
        for name in named:
            if not any(next(place.glob(name.rstrip("/")), None) for place in (folder, folder.parent, root)):
                yield f"src/{room}/README.md", f"{name} is not there"
        for path in folder.glob("*.c"):
            if not any(path.match(name) or path.with_suffix(".h").match(name) for name in named):
                yield f"src/{room}/README.md", f"{path.name} is not named"


def setting_faults(root, text):
    code = (root / "src" / "pg" / "settings.c").read_text(encoding="utf-8")
    there = set(re.findall(r'^\t\t"(minimax_m1\.\w+)", PGC_', code, re.M))
    here = set(re.findall(r"^\| (minimax_m1\.\w+) \|", text, re.M))
    for name in sorted(there ^ here):
        yield name, "docs/settings.md has no row for it" if name in there else "src/pg/settings.c does not define it"


def report(case, faults):
    faults = list(faults)
    print("\n".join([f"{'not ok' if faults else 'ok'} {case}", *(f"# {name}: {why}" for name, why in faults)]))


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    internals = (root / "docs" / "internals.md").read_text(encoding="utf-8")
    report("names in docs/internals.md", unknown_names(root, internals))
    report("rooms in docs/internals.md", room_faults(root, internals))
    report("files in the README of each room", readme_faults(root))
    report("settings in docs/settings.md", setting_faults(root, (root / "docs" / "settings.md").read_text(encoding="utf-8")))
    print("done")


main()
