#!/usr/bin/env python3
"""What docs/scale.md and README.md say of what works over which server, beside what the proxy does before servers of each kind.

table.py ENGINE: each row is tried on each dialect, and what is seen is written as the cell must say it; a row that nothing
tries and a trial without a row are faults. So is a function of the extension that is in no row of README's table of
functions, or in several; what a function needs says where it works. Prints a line "ok ..." or "not ok ..." per case, and "done" at the end. Standard library only.
"""
import glob
import re

from testing import LABELS, SCHEMA, mock, proxy, report, words
from wire import FETCH, FORGET, LESSON, LOGITS, PUT, SERVE, TOKENIZE, TRAINING, numbers, text, words as wire_words

CHAPTER, README = "docs/scale.md", "README.md"
DIALECTS = ["vllm", "llama.cpp", "sglang", "openai"]

# Functions and procedures that need no model: administration, and what reads tables or replies that are there.
WITHOUT_MODEL = set("""activity_rows alter_annotator annotate_row backfill backfill_batch call_support cancel cancel_agent_run
    cancel_job cancel_training corrections coverage create_agent create_annotator drop_adapter drop_agent drop_annotator
    drop_training enqueue_annotation export_adapter forget_agent_runs grant_adapter grant_training grant_usage import_adapter
    last_statement_rows mcnemar_p model_row pass_at_k pause_training plot_training poll prefix_cache_row resume_training
    retry_failed revoke_adapter revoke_training reward_exact reward_format reward_json reward_length reward_number reward_sql
    role_use set_price set_quota stats_by_function_rows stats_latency_rows stats_reset stats_row usage_reset usage_rows
    wait_for wait_for_training""".split())
# Parts of aggregates, which are there by the aggregates' names.
PARTS = {"summarize_agg_step", "reduce_agg_step", "reduce_agg_final"}


class Pair:
    """A proxy and the server behind it."""

    def __init__(self, dialect, *scripts, options=(), **more):
        self.dialect, self.asked = dialect, 0

        def tokenizes(value):
            self.asked += 1
            return words.tokens(value)

        self.server = mock(dialect, *scripts, tokenizes=tokenizes, **more)
        self.engine = proxy(self.server, options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log = self.engine.stop()
        self.server.stop()

    def run(self, **request):
        return self.engine.run(**{"prompt": "Hello."} | request)

    @property
    def last(self):
        return self.server.requests[-1]

    def sampling(self, *names):
        """Of these members of the last request, the one that is there."""
        request = self.last.get("sampling_params", self.last)
        return next((request[name] for name in names if name in request), None)


def refusal(end):
    return {"unsupported": "refused"}.get(end.get("status"), f"failed: {end}")


def is_answer(end):
    return end.get("finish") is not None


# ---- one trial for each row ----

def replies(d):
    with Pair(d, "yes") as p:
        return "yes" if all(p.run(stream=s, budget=0).get("finish") == "stop" for s in (False, True)) else "no"


def token_ids(d):
    with Pair(d, "abc def ghi") as p:
        end = p.engine.run(ids=words.tokens("abc"), max_tokens=2)
        return "yes" if is_answer(end) and len(end["ids"]) == 2 else refusal(end)


def tokenizing(d):
    with Pair(d, "yes") as p:
        asked = p.asked
        ids = p.engine.wait(p.engine.ask(TOKENIZE, wire_words("a b")))
        ok = ids == words.tokens("a b") and p.asked == asked
        return "elsewhere" if not ok else "here" if asked else "here, the server's may differ"


def stops(d):
    with Pair(d, "one two three") as p:
        return "yes" if p.run(stops=["two"], budget=0).get("content") == "one " else "no"


def sampling(d):
    with Pair(d, "yes") as p:
        p.run(temperature=0.5, top_p=0.25, seed=7, budget=0)
        sent = (p.sampling("temperature"), p.sampling("top_p"), p.sampling("seed", "sampling_seed"))
        return "yes" if sent[:2] == (0.5, 0.25) and sent[2] is not None else f"not all is sent: {sent}"


def top_k(d):
    with Pair(d, "yes") as p:
        end = p.run(top_k=5, budget=0)
        return refusal(end) if not is_answer(end) else "yes" if p.sampling("top_k") == 5 else "not sent"


def tools(d):
    with Pair(d, '<tool_calls>\n{"name": "f", "arguments": {}}\n</tool_calls>') as p:
        end = p.run(tools='[{"name":"f","description":"f","parameters":{"type":"object","properties":{}}}]', budget=0)
        return "yes" if is_answer(end) and '"f"' in end["calls"] else refusal(end)


def budget(d):
    with Pair(d, "<think>\none two three four five six seven\n</think>\n\nyes", answers=["no"]) as p:
        end = p.run(budget=4)
        if is_answer(end):
            return "in two requests" if len(p.server.requests) == 2 and end["finish"] == "thinking_budget" else "no"
        p.server.scripts = ["no"]
        none = p.run(budget=0)
        return "only 0, which leaves it out" if is_answer(none) and not none["reasoning"] else refusal(end)


def form(kind, of, answer, wanted):
    def trial(d):
        with Pair(d, answer, answers=[answer]) as p:
            end = p.run(kind=kind, form=of, budget=0)
            if not is_answer(end):
                return refusal(end)
            if end["content"] != wanted:
                return f"no: {end['content']}"
            if "response_format" in p.last:
                return "as a schema"
            return "as a grammar" if any(word in str(p.last) for word in ("grammar", "ebnf")) else "no"
    return trial


def scores(d):
    with Pair(d, "positive") as p:
        end = p.run(kind="choices", form=LABELS, score=True, budget=0)
        if not is_answer(end):
            return refusal(end)
        tokens = sum(len(words.tokens(c)) + 1 for c in ("positive", "negative", "neutral"))
        return {3: "a request a choice", tokens: "a request a token"}.get(len(p.server.requests), "no")


def guard(d):
    with Pair(d, "word " * 3100, likely=0.0) as p:
        return "yes" if p.run(budget=0, max_tokens=3050, seconds=300).get("finish") == "loop" else "no"


def cached(d):
    with Pair(d, "yes", cached=7) as p:
        return "yes" if p.run(budget=0).get("cached") == 7 else "no"


def adapters(d):
    with Pair(d, "yes", adapters=["poet"]) as p:
        end, other = p.run(adapter="poet", budget=0), p.run(adapter="clerk")
        if other.get("status") != "not_found":
            return f"another one gives {other}"
        if not is_answer(end):
            return "refused" if end.get("status") == "not_found" else refusal(end)
        return "by name" if "poet" in (p.last.get("model"), p.last.get("lora_path")) else "no"


def private(d):
    with Pair(d, "yes") as p:
        p.run(owner=5, budget=0)
        salts = [p.last.get("cache_salt", p.last.get("extra_key"))]
        p.run(owner=6, budget=0)
        salts.append(p.last.get("cache_salt", p.last.get("extra_key")))
    if all(salts) and salts[0] != salts[1]:
        return "yes"
    return "no: a warning is logged" if "apart" in p.log else "no"


def always_refused(*asks):
    def trial(d):
        with Pair(d, "yes") as p:
            ends = [p.engine.wait(p.engine.ask(*ask)) if isinstance(ask, tuple) else p.run(**ask) for ask in asks]
            told = all(e.get("status") == "unsupported" and e["message"] and e["hint"] for e in ends)
            return "refused" if told else f"not all is refused: {ends}"
    return trial


TRAIN = [(TRAINING, b""), (LESSON, b""), (FETCH, b"")]
TRIALS = {
    "replies, whole and streamed": replies,
    "token ids": token_ids,
    "tokens of a text, and their number": tokenizing,
    "stop strings": stops,
    "temperature, top_p, seed": sampling,
    "top_k": top_k,
    "calls of tools": tools,
    "a budget of reasoning": budget,
    "choices": form("choices", LABELS, "negative", "negative"),
    "JSON of a schema": form("schema", SCHEMA, '{"a":12,"b":"x"}', '{"a":12,"b":"x"}'),
    "regular expressions": form("regex", "[0-9]{4}-[01][0-9]", "2026-11", "2026-11"),
    "probabilities of choices": scores,
    "the guard against endless repetition": guard,
    "cached tokens": cached,
    "adapters": adapters,
    "caches of roles kept apart": private,
    "logits, and probabilities of the written tokens": always_refused((LOGITS, numbers("i", [1]) + numbers("i", [])), {"logprobs": True}),
    "training": always_refused({"keep": True}, *TRAIN),
    "adapters of the database": always_refused((PUT, b""), (SERVE, b""), (FORGET, b"")),
}


# ---- the tables ----

def table(chapter, first):
    """The rows, as lists of cells, of the table whose head begins with this cell."""
    lines = chapter[chapter.index(f"| {first} |"):].splitlines()
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[0], rows[2:]


def plain(cell):
    """What the cell says before a remark in brackets, which no trial sees."""
    return re.sub(r" \(.*\)$", "", cell)


def check_cells(chapter):
    head, rows = table(chapter, "what")
    report([c.lower().replace("openai's kind", "openai") for c in head[1:]] == DIALECTS, "the table has a column for each dialect", head)
    for name, *cells in rows:
        trial = TRIALS.get(plain(name))
        if trial is None:
            report(False, f"the row \"{name}\" is tried")
            continue
        for dialect, cell in zip(DIALECTS, cells):
            seen = trial(dialect)
            report(seen == plain(cell), f"{plain(name)}, over {dialect}: {plain(cell)}", f"what is seen is: {seen}")
    there = {plain(name) for name, *_ in rows}
    report(not TRIALS.keys() - there, "what is tried is in the table", TRIALS.keys() - there)


def functions_of_sql():
    found = set()
    for path in glob.glob("sql/install/*.sql"):
        with open(path, encoding="utf-8") as f:
            found.update(re.findall(r"CREATE (?:FUNCTION|PROCEDURE|AGGREGATE) (?:@extschema@\.)?(\w+)", f.read()))
    return {name for name in found if not name.startswith("_")}


def check_functions(readme, chapter):
    head, rows = table(readme, "functions")
    whats, of = table(chapter, "what")
    report(head[2:] == whats[1:], "both tables have the same kinds of servers", head)
    works = {plain(what): ["no" if plain(cell) == "refused" else "yes" for cell in cells] for what, *cells in of}
    named = []
    for functions, need, *cells in rows:
        named += re.findall(r"\w+", functions)
        report(cells == works.get(need), f"functions that need {need}", f"{cells} is not {works.get(need)}")
    report(len(named) == len(set(named)), "no function is there twice", named)
    there = functions_of_sql()
    report(set(named) <= there, "each function is one of the extension", set(named) - there)
    others = WITHOUT_MODEL | PARTS
    report(not there - set(named) - others, "each function of the extension is there, or needs no model", there - set(named) - others)
    report(not others & set(named) and others <= there, "and not both", (others & set(named), others - there))


def text_of(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


scale = text_of(CHAPTER)
check_functions(text_of(README), scale)
check_cells(scale)
words.engine.stop()
print("done")
