"""Grammars in llama.cpp's notation, as far as src/grammar/gbnf.c writes it: read, and asked whether a text is one of
theirs. It shares no code with what writes them. Standard library only."""
import re

TOKEN = re.compile(r'\s*(?:(::=)|(\|)|"((?:[^"\\]|\\.)*)"|\[((?:[^\]\\]|\\.)*)\]|([A-Za-z][A-Za-z0-9_-]*))')
ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})|\\U([0-9A-Fa-f]{8})|(.)", re.S)


def characters(text):
    return [int(m[1] or m[2], 16) if m[1] or m[2] else ord(m[3]) for m in ESCAPE.finditer(text)]


def ranges(text):
    """[(low, high)] of a class: "-" between two characters is the only thing with a meaning, and never a member."""
    parts, found = ESCAPE.findall(text), []
    units = [("-", None) if c == "-" else (None, int(u or U, 16) if u or U else ord(c)) for u, U, c in parts]
    i = 0
    while i < len(units):
        low = units[i][1]
        if i + 2 < len(units) and units[i + 1][0] == "-":
            found.append((low, units[i + 2][1]))
            i += 3
        else:
            found.append((low, low))
            i += 1
    return found


def parse(grammar):
    """{name: [[item]]}, an item being a name or a list of ranges."""
    rules = {}
    for line in grammar.splitlines():
        name, _, rest = line.partition("::=")
        alternatives, at = [[]], 0
        while rest[at:].strip():
            m = TOKEN.match(rest, at)
            if not m:
                raise ValueError(f"no grammar: {line[:200]}")
            at = m.end()
            if m[2]:
                alternatives.append([])
            elif m[5]:
                alternatives[-1].append(m[5])
            elif m[4] is not None:
                alternatives[-1].append(ranges(m[4]))
            else:
                alternatives[-1].extend([(c, c)] for c in characters(m[3]))
        rules[name.strip()] = alternatives
    return rules


def close(rules, stacks):
    """All stacks that begin with characters, or are empty, of those that these become without reading."""
    done, todo, found = set(), list(stacks), set()
    while todo:
        stack = todo.pop()
        if stack in done:
            continue
        done.add(stack)
        if not stack:
            found.add(stack)
            continue
        name, alternative, at, below = stack
        items = rules[name][alternative]
        if at == len(items):
            todo.append(below)
        elif isinstance(items[at], str):
            rest = below if at + 1 == len(items) else (name, alternative, at + 1, below)
            todo.extend((items[at], i, 0, rest) for i in range(len(rules[items[at]])))
        else:
            found.add(stack)
    return found


def matches(rules, text):
    stacks = close(rules, [("root", i, 0, ()) for i in range(len(rules["root"]))])
    for c in map(ord, text):
        stacks = close(rules, [(n, a, at + 1, below) for n, a, at, below in filter(None, stacks)
                               if any(low <= c <= high for low, high in rules[n][a][at])])
    return () in stacks
