#!/usr/bin/env python3
"""1,000 random JSON schemas, answered by the bundled checkpoint, validated by python3-jsonschema.

schemas.py ANSWERS: runs that program (answers.c); prints "ok" or "not ok" for every hundred schemas, and "done" at the end.
"""
import json
import random
import subprocess
import sys

from jsonschema import Draft202012Validator

COUNT = 1000
MAX_TOKENS = 400
WORDS = ["issue", "customer", "order", "price", "tags", "when", "Größe", "a b", "x/y~z", "quote\"d", "n", "_id"]
# each with what python3-jsonschema makes of it: re.search
PATTERNS = ["^[A-Z]{2}[0-9]{1,4}$", "^(red|green|blue)$", "[aeiou]", "^.{2,8}$", "^[^\\\\\"]+$", "\\d+-\\d+", "^\\S+ \\S+$"]


def listed_value(r):
    return r.choice([None, True, False, r.randint(-50, 50), r.choice(WORDS), r.random() * 10, "line\nbreak", [], [1, "a"],
                     {"k": r.choice(WORDS)}])


def string(r):
    kind = r.randrange(5)
    if kind == 0:
        return {"type": "string", "pattern": r.choice(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": r.choice(["date", "time", "date-time", "uuid"])}
    low = r.randint(0, 4)
    schema = {"type": "string", "maxLength": low + r.randint(0, 20)}
    if low:
        schema["minLength"] = low
    return schema


def number(r):
    schema = {"type": r.choice(["integer", "number"])}
    low = r.randint(-2000, 2000)
    if r.random() < 0.6:
        schema[r.choice(["minimum", "exclusiveMinimum"])] = low
    if r.random() < 0.6:
        schema[r.choice(["maximum", "exclusiveMaximum"])] = low + r.choice([2, 3, 10, 999, 10**6])
    return schema


def array(r, depth):
    schema = {"type": "array"}
    if r.random() < 0.3:
        schema["prefixItems"] = [anything(r, depth - 1) for _ in range(r.randint(1, 3))]
    if r.random() < 0.8:
        schema["items"] = anything(r, depth - 1)
    low = r.randint(0, 2)
    if low:
        schema["minItems"] = low
    schema["maxItems"] = low + r.randint(0, 3)
    return schema


def object_(r, depth):
    if r.random() < 0.1:
        return {"type": "object", "additionalProperties": anything(r, depth - 1)}
    names = r.sample(WORDS, r.randint(0, 4))
    schema = {"type": "object", "properties": {name: anything(r, depth - 1) for name in names}}
    required = [name for name in names if r.random() < 0.6]
    if required:
        r.shuffle(required)
        schema["required"] = required
    if r.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def one_of(r, depth):
    if r.random() < 0.5:
        return {"oneOf": r.sample([{"type": "null"}, {"type": "boolean"}, string(r), number(r), object_(r, depth - 1)], 3)}
    kinds = r.sample(WORDS, r.randint(2, 3))
    return {"oneOf": [{"type": "object", "properties": {"kind": {"const": kind}, "value": anything(r, depth - 1)},
                       "required": ["kind", "value"]} for kind in kinds]}


def anything(r, depth):
    choices = [string, string, number, number, lambda r: {"type": r.choice(["boolean", "null", ["null", "integer"]])},
               lambda r: {"enum": [listed_value(r) for _ in range(r.randint(1, 5))]}, lambda r: {"const": listed_value(r)}]
    if depth > 0:
        choices += [lambda r: array(r, depth), lambda r: object_(r, depth), lambda r: object_(r, depth),
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


def fault(schema, answer):
    """What is wrong with an answer, or nothing."""
    if "error" in answer:
        return answer["error"]
    if answer["finish_reason"] not in ("stop", "thinking_budget"):
        return "finish_reason " + answer["finish_reason"]
    try:
        value = json.loads(answer["content"])
    except ValueError as error:
        return str(error)
    return next((error.message for error in Draft202012Validator(schema).iter_errors(value)), None)


def main():
    r = random.Random(20)
    schemas = [document(r) for _ in range(COUNT)]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    lines = "".join(json.dumps(schema, ensure_ascii=False) + "\n" for schema in schemas)
    run = subprocess.run([sys.argv[1], "models/m1-nano", str(MAX_TOKENS)], input=lines, capture_output=True, text=True,
                         timeout=600)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode != 0 or len(answers) != COUNT:
        print(f"not ok {len(answers)} answers to {COUNT} schemas: {run.stderr.strip()}")
    for first in range(0, len(answers), 100):
        faults = [(i, fault(schemas[i], answers[i])) for i in range(first, min(first + 100, len(answers)))]
        bad = [(i, what) for i, what in faults if what]
        print(("not ok" if bad else "ok") + f" schemas {first} to {first + 99}")
        for i, what in bad[:5]:
            print(f"  {what[:200]}\n    {json.dumps(schemas[i], ensure_ascii=False)[:1000]}\n    {str(answers[i])[:500]}")
    print("done")


main()
