#!/usr/bin/env python3
"""1,000 random JSON schemas, answered by the bundled checkpoint, validated by python3-jsonschema. Any keyword may stand
beside any other that docs/constrained.md allows; where the engine says that nothing satisfies a schema, a value is sought.

Then 100 lists of tools with such parameters, of which the checkpoint must call some.

schemas.py ANSWERS: runs that program (answers.c); prints "ok" or "not ok" for every hundred schemas, and "done" at the end.
"""
import decimal
import json
import random
import subprocess
import sys

from jsonschema import Draft202012Validator

COUNT = 1000
COUNT_OF_TOOLS = 100
MAX_TOKENS = 400
NO_ANSWER = "no answer can satisfy the constraint"
MOST_WITHOUT = COUNT // 5  # schemas that no value satisfies
WORDS = ["issue", "customer", "order", "price", "tags", "when", "Größe", "a b", "x/y~z", "quote\"d", "n", "_id"]
# what python3-jsonschema makes of each, re.search, with a text that it finds
PATTERNS = {"^[A-Z]{2}[0-9]{1,4}$": "AB1", "^(red|green|blue)$": "red", "[aeiou]": "a", "^.{2,8}$": "ab",
            "^[^\\\\\"]+$": "a", "\\d+-\\d+": "1-2", "^\\S+ \\S+$": "a b", "^[^\\x00-\\x1F\\x7F]{1,9}$": "a"}
FORMATS = {"date": "2026-01-01", "time": "10:00:00Z", "date-time": "2026-01-01T10:00:00Z",
           "uuid": "123e4567-e89b-12d3-a456-426614174000"}


def listed_value(r):
    return r.choice([None, True, False, r.randint(-50, 50), r.choice(WORDS), r.random() * 10, "line\nbreak", [], [1, "a"],
                     {"k": r.choice(WORDS)}])


def string(r):
    kind = r.randrange(5)
    if kind == 0:
        return {"type": "string", "pattern": r.choice(list(PATTERNS))}
    if kind == 1:
        return {"type": "string", "format": r.choice(list(FORMATS))}
    low = r.randint(0, 4)
    schema = {"type": "string", "maxLength": low + r.randint(0, 20)}
    if low:
        schema["minLength"] = low
    return schema


def with_fractions(schema):
    """Bounds of real numbers may have them where none is exclusive; half of those that are not large get one."""
    bounds = [schema[name] for name in ("minimum", "maximum") if name in schema]
    exclusive = "exclusiveMinimum" in schema or "exclusiveMaximum" in schema
    if schema["type"] != "number" or exclusive or any(abs(bound) > 10**7 for bound in bounds) or sum(bounds) % 2 == 0:
        return schema
    return {**schema, **{name: schema[name] + fraction for name, fraction in (("minimum", 0.25), ("maximum", 0.875)) if name in schema}}


def number(r):
    schema = {"type": r.choice(["integer", "number"])}
    low = r.choice([r.randint(-2000, 2000), r.randint(-2000, 2000), 0, 1700000000000, -9007199254740993])
    fraction = r.choice([0, 0, 0.5]) if schema["type"] == "integer" else 0
    for name in ("minimum", "exclusiveMinimum"):
        if r.random() < 0.4:
            schema[name] = low + fraction - r.randint(0, 2)
    for name in ("maximum", "exclusiveMaximum"):
        if r.random() < 0.4:
            schema[name] = low + r.choice([0, 1, 2, 3, 10, 999, 10**6]) + fraction
    return with_fractions(schema)


def array(r, depth):
    schema = {"type": "array"}
    if r.random() < 0.3:
        schema["prefixItems"] = [anything(r, depth - 1) for _ in range(r.randint(1, 3))]
    if r.random() < 0.8:
        schema["items"] = r.choice([anything(r, depth - 1), anything(r, depth - 1), anything(r, depth - 1), True, False])
    low = r.randint(0, 3)
    if low:
        schema["minItems"] = low
    if r.random() < 0.8:
        schema["maxItems"] = max(0, low + r.randint(-1, 3))
    return schema


def object_(r, depth):
    schema = {"type": "object"}
    names = r.sample(WORDS, r.randint(0, 4))
    if r.random() < 0.9:
        schema["properties"] = {name: anything(r, depth - 1) for name in names}
    required = [name for name in names if r.random() < 0.6] + r.sample(WORDS, r.choice([0, 0, 0, 1, 2]))
    if required:
        r.shuffle(required)
        schema["required"] = list(dict.fromkeys(required))
    if r.random() < 0.6:
        schema["additionalProperties"] = r.choice([False, True, anything(r, depth - 1)])
    return schema


def mixed(r, depth):
    """Keywords of several types side by side, some of which speak of types that the value may not have."""
    schema = {}
    for part in r.sample([string(r), number(r), array(r, depth - 1), object_(r, depth - 1)], r.randint(1, 3)):
        schema.update(part)
    types = r.sample(["string", "integer", "number", "array", "object", "boolean", "null"], r.randint(1, 3))
    schema["type"] = types
    if "integer" not in types or "number" in types:
        for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            if schema.get(name, 0) != int(schema.get(name, 0)):
                del schema[name]
    if "pattern" in schema or "format" in schema:
        for name in ("minLength", "maxLength") + (("format",) if "pattern" in schema else ()):
            schema.pop(name, None)
    return schema


def listed(r):
    schema = {"enum": [listed_value(r) for _ in range(r.randint(1, 5))]}
    if r.random() < 0.3:
        schema = {"const": listed_value(r)}
    if r.random() < 0.3:
        schema["type"] = r.sample(["string", "integer", "number", "array", "object", "boolean", "null"], r.randint(1, 4))
    return schema


def one_of(r, depth):
    if r.random() < 0.5:
        return {"oneOf": r.sample([{"type": "null"}, {"type": "boolean"}, string(r), number(r), object_(r, depth - 1)], 3)}
    kinds = r.sample(WORDS, r.randint(2, 3))
    return {"oneOf": [{"type": "object", "properties": {"kind": {"const": kind}, "value": anything(r, depth - 1)},
                       "required": ["kind", "value"]} for kind in kinds]}


def anything(r, depth):
    choices = [string, string, number, number, lambda r: {"type": r.choice(["boolean", "null", ["null", "integer"]])},
               listed, listed]
    if depth > 0:
        choices += [lambda r: array(r, depth), lambda r: object_(r, depth), lambda r: object_(r, depth),
                    lambda r: mixed(r, depth),
                    lambda r: {"anyOf": [anything(r, depth - 1) for _ in range(r.randint(1, 3))]},
                    lambda r: one_of(r, depth), lambda r: {"$ref": r.choice(["#/$defs/node", "#/$defs/leaf"])}]
    schema = r.choice(choices)(r)
    if r.random() < 0.2 and "$ref" not in schema:
        schema["description"] = "what the customer wants"
    return schema


def document(r):
    schema = anything(r, 3)
    schema.setdefault("$schema", "https://json-schema.org/draft/2020-12/schema")
    schema["$defs"] = {
        "leaf": string(r),
        "node": {"type": "object",
                 "properties": {"value": {"$ref": "#/$defs/leaf"},
                                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                 "required": ["next"]},
    }
    return schema


def tools(r):
    """Definitions, some of them as OpenAI's clients write them."""
    definitions = []
    for name in r.sample(WORDS, r.randint(1, 3)):
        parameters = object_(r, 2)
        parameters["$defs"] = document(r)["$defs"]
        definition = {"name": name, "description": "does " + name, "parameters": parameters}
        definitions.append(r.choice([definition, {"type": "function", "function": definition}]))
    return definitions


class Witness:
    """Looks for a value of a schema, in a few plain ways: where it finds one, the engine must not say that there is none."""

    def __init__(self, root):
        self.root = root

    def valid(self, schema, value):
        whole = {"$defs": self.root.get("$defs", {}), "allOf": [schema]}
        return Draft202012Validator(whole).is_valid(value)

    def of(self, schema, depth=0):
        """A list of one value, or an empty one."""
        if depth > 8:
            return []
        for value in self.candidates(schema, depth) if isinstance(schema, dict) else [None]:
            if self.valid(schema, value):
                return [value]
        return []

    def candidates(self, schema, depth):
        if "$ref" in schema:
            yield from self.of(self.root["$defs"][schema["$ref"].split("/")[-1]], depth + 1)
        for alternative in schema.get("anyOf", []) + schema.get("oneOf", []):
            yield from self.of(alternative, depth + 1)
        yield from schema.get("enum", [schema.get("const")])
        yield from (None, True, "", 0, [], {}, PATTERNS.get(schema.get("pattern")), FORMATS.get(schema.get("format")))
        yield "x" * schema.get("minLength", 0)
        bounds = [schema[name] for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if name in schema]
        yield from (int(bound) + step for bound in bounds for step in (-1, 0, 1))
        yield from bounds
        yield from self.arrays(schema, depth)
        yield from self.objects(schema, depth)

    def arrays(self, schema, depth):
        prefix = schema.get("prefixItems", [])
        schemas = (prefix + [schema.get("items", True)] * schema.get("minItems", 0))[:schema.get("minItems", 0)]
        items = [self.of(item, depth + 1) for item in schemas]
        if all(items):
            yield [item[0] for item in items]

    def objects(self, schema, depth):
        others = schema.get("additionalProperties", True)
        members = {name: self.of(schema.get("properties", {}).get(name, others), depth + 1)
                   for name in schema.get("required", [])}
        if all(members.values()):
            yield {name: member[0] for name, member in members.items()}


def exactly(text):
    return json.loads(text, parse_float=decimal.Decimal)


def first_error(schema, value, exact):
    """What the validator says of a value; a bound that no 64 bits hold counts as JSON Schema means it, digit by digit."""
    error = next(Draft202012Validator(schema).iter_errors(value), None)
    if error is None or not any(Draft202012Validator(exactly(json.dumps(schema))).iter_errors(exact)):
        return None
    return error.message


def fault(schema, answer):
    """What is wrong with an answer, or nothing."""
    if answer.get("error") == NO_ANSWER:
        witness = Witness(schema).of(schema)
        return f"{NO_ANSWER}, though {json.dumps(witness[0])} does" if witness else None
    if "error" in answer:
        return answer["error"]
    if answer["finish_reason"] not in ("stop", "thinking_budget"):
        return "finish_reason " + answer["finish_reason"]
    try:
        value, exact = json.loads(answer["content"]), exactly(answer["content"])
    except ValueError as error:
        return str(error)
    return first_error(schema, value, exact)


def fault_of_calls(definitions, answer):
    """What is wrong with calls, or nothing."""
    functions = {d["name"]: d["parameters"] for d in (d.get("function", d) for d in definitions)}
    if answer.get("error") == NO_ANSWER:
        witness = [w for parameters in functions.values() for w in Witness(parameters).of(parameters)]
        return f"{NO_ANSWER}, though {json.dumps(witness[0])} does" if witness else None
    if "error" in answer:
        return answer["error"]
    if answer["finish_reason"] not in ("stop", "thinking_budget") or answer["content"]:
        return f"finish_reason {answer['finish_reason']}, content {answer['content']!r}"
    calls = json.loads(answer["tool_calls"])
    for call, exact in zip(calls, exactly(answer["tool_calls"])):
        if "a key twice" in call.get("error", ""):
            continue  # an object of any names is held to its values, not to names that differ
        if set(call) != {"name", "arguments"} or call["name"] not in functions:
            return f"no call: {call}"
        error = first_error(functions[call["name"]], call["arguments"], exact["arguments"])
        if error:
            return error
    return None if calls else "no calls"


def main():
    r = random.Random(20)
    schemas = [document(r) for _ in range(COUNT)] + [tools(r) for _ in range(COUNT_OF_TOOLS)]
    for schema in schemas[:COUNT]:
        Draft202012Validator.check_schema(schema)
    lines = "".join(json.dumps(schema, ensure_ascii=False) + "\n" for schema in schemas)
    run = subprocess.run([sys.argv[1], "models/m1-nano", str(MAX_TOKENS)], input=lines, capture_output=True, text=True,
                         timeout=600)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode != 0 or len(answers) != len(schemas):
        print(f"not ok {len(answers)} answers to {len(schemas)} schemas: {run.stderr.strip()}")
    without = sum(answer.get("error") == NO_ANSWER for answer in answers)
    if without > MOST_WITHOUT:
        print(f"not ok {without} schemas have no answer")
    for first in range(0, len(answers), 100):
        judge = fault if first < COUNT else fault_of_calls
        faults = [(i, judge(schemas[i], answers[i])) for i in range(first, min(first + 100, len(answers)))]
        bad = [(i, what) for i, what in faults if what]
        print(("not ok" if bad else "ok") + f" schemas {first} to {first + 99}")
        for i, what in bad[:5]:
            print(f"  {what[:200]}\n    {json.dumps(schemas[i], ensure_ascii=False)[:1000]}\n    {str(answers[i])[:500]}")
    print("done")


main()
