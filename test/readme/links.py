#!/usr/bin/env python3
"""Checks that the links of all Markdown files lead somewhere.

links.py [ROOT]: every relative link names a file or folder that is there, and every anchor a heading of its file, spelled
as GitHub spells it. One line "ok" or "not ok" for each file that has links. Standard library only.
"""
import os
import re
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.M)
CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def prose(path):
    return CODE.sub("", path.read_text(encoding="utf-8"))


def anchors(path):
    """The anchors of a file's headings: small letters, blanks as hyphens, no punctuation, numbered when repeated."""
    seen = {}
    for heading in HEADING.findall(prose(path)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen[name] = seen.get(name, -1) + 1
        yield name if count == 0 else f"{name}-{count}"


def fault_of(path, link):
    if re.match(r"[a-z]+:", link):
        return None
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists():
        return "there is no such file"
    if anchor and anchor not in anchors(target):
        return "the file has no such heading"
    return None


def documents(root):
    """All Markdown files but those below build, where folders come and go while servers are tested."""
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders[:] = set(folders) - {"build", ".git"}
        yield from (Path(folder) / name for name in names if name.endswith(".md"))


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2])
    for path in sorted(documents(root)):
        name = path.relative_to(root)
        links = LINK.findall(prose(path))
        if not links:
            continue
        faults = [f"# {link}: {fault}" for link in links if (fault := fault_of(path, link))]
        print("\n".join([f"{'not ok' if faults else 'ok'} links of {name}", *faults]))
    print("done")


main()
