"""world.py - the world of m1-nano: a help desk, its customers' messages, and what may be asked about them.

Every example is a dict that `minimax_m1_engine train` takes as a line: {"prompt", "reasoning", "answer"}, or
{"messages"} for conversations of several turns, maybe with "tools". Nothing but the random source decides what comes.
"""
import json
import random

NAMES = ("Ana Ben Carla Dmitri Elena Farid Grace Hugo Ines Jonas Keiko Liam Maya Noah Olga Priya Quentin Rosa Sami "
         "Tara Umar Vera Wei Ximena Yusuf Zoe Marta Oscar Leila Pavel").split()
CITIES = ("Lisbon Oslo Kyoto Nairobi Lima Porto Austin Leeds Gdansk Izmir Hanoi Quito Cork Malmo Turin Perth Ghent "
          "Split Riga Basel").split()
HARDWARE = ["wireless headphones", "coffee machine", "standing desk", "laptop charger", "electric kettle",
            "robot vacuum", "desk lamp", "air fryer", "bluetooth speaker", "smart watch", "office chair",
            "rice cooker", "phone case", "hair dryer", "power bank", "space heater", "toaster", "monitor",
            "keyboard", "webcam"]
ACCOUNTS = ["mobile app", "photo backup plan", "music subscription", "cloud account", "loyalty card", "gift card",
            "video membership", "email account"]
HARDWARE_ISSUES = ["stopped charging", "makes a loud grinding noise", "will not turn on", "leaks water",
                   "arrived with a cracked screen", "smells of burning plastic", "overheats within minutes",
                   "keeps disconnecting", "has a missing screw", "flickers all the time", "broke in half",
                   "gives small electric shocks"]
ACCOUNT_ISSUES = ["locks me out", "was charged twice", "does not accept my password", "lost all my photos",
                  "keeps logging me out", "shows the wrong balance", "was cancelled without notice",
                  "crashes at start"]
UNSAFE = {"smells of burning plastic", "overheats within minutes", "gives small electric shocks", "leaks water"}
BILLING = {"was charged twice", "shows the wrong balance"}
DELIVERY = ["never arrived", "was delivered to the wrong address", "arrived three weeks late",
            "arrived in a torn box"]
WHEN = ["after two days", "after one week", "since Monday", "since last night", "after the latest update",
        "on the first day", "since the summer", "after a month", "since this morning", "on arrival"]
WANTS = ["a refund", "a replacement", "a repair", "a discount", "to cancel the order", "a call back", "a new manual"]
PRAISE = ["works perfectly", "is better than I hoped", "saved me hours", "looks beautiful", "was easy to set up",
          "is worth every cent"]
NEUTRAL = ["comes in blue and grey", "weighs about two kilograms", "has two buttons", "is used in our office",
           "was bought in March", "needs two batteries"]
FILLERS = ["I am writing from {city}.", "The weather here has been strange lately.",
           "I have been a customer for years.", "My neighbour recommended your shop.", "I read the manual twice.",
           "The box was very large.", "Please excuse my spelling.", "I tried turning it off and on.",
           "My brother helped me with it.", "I keep the receipt in a drawer.", "We use it every day at home.",
           "The order was placed online.", "I could not find this on your website.",
           "It was a present for my mother.", "Nobody answered the phone yesterday.", "I hope you are well.",
           "The colour is fine.", "There were two manuals in the box.", "I live on the third floor.",
           "The courier was polite."]
GREETINGS = ["Hello,", "Hi there,", "Dear team,", "Good morning,", "To whom it may concern,", ""]
CLOSINGS = ["Thanks, {name}", "Regards, {name}", "Best wishes, {name}", "Sincerely, {name}", "{name}"]
ROOMS = ["kitchen", "garage", "cellar", "library", "attic", "workshop", "garden", "lobby", "studio", "office",
         "chapel", "tower"]
LABELS = {"sentiment": ["positive", "negative", "neutral"],
          "category": ["hardware", "account", "billing", "delivery", "praise", "other"],
          "priority": ["high", "normal", "low"]}
NOT_SAID = "The text does not say."


# ---- messages of customers ----

def order_id(r):
    return r.choice("ABCDEFGHK") + "-" + "".join(r.choice("0123456789") for _ in range(5))


def made_up_word(r):
    """A word that no text has had: what is learnt of it is to copy it."""
    return "".join(r.choice("bdfgklmnprstvz") + r.choice("aeiou") for _ in range(r.choice([2, 3])))


def complaint(r, t, hardware):
    t["issue"] = r.choice(HARDWARE_ISSUES if hardware else ACCOUNT_ISSUES)
    t["category"] = "billing" if t["issue"] in BILLING else ("hardware" if hardware else "account")
    t["sentiment"] = "negative"
    return r.choice(["My {product} {issue} {when}.", "The {product} I bought {issue} {when}.",
                     "{When}, the {product} {issue}."])


def delivery(r, t, _hardware):
    t.update(issue=r.choice(DELIVERY), category="delivery", sentiment="negative", when="")
    return r.choice(["My {product} {issue}.", "The {product} I ordered {issue}."])


def praise(r, t, _hardware):
    t.update(issue=r.choice(PRAISE), category="praise", sentiment="positive", when="")
    return r.choice(["My new {product} {issue}.", "The {product} {issue}."])


def remark(r, t, _hardware):
    t.update(issue=r.choice(NEUTRAL), category="other", sentiment="neutral", when="")
    return "The {product} {issue}."


KINDS = {"complaint": (complaint, 5), "praise": (praise, 2), "neutral": (remark, 1), "delivery": (delivery, 2)}


def ticket(r, fillers=None, product=None):
    """One message: its text, and all that can be asked about it."""
    kind = r.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    hardware = r.random() < .7 or kind == "delivery"
    t = {"kind": kind, "customer": r.choice(NAMES), "city": r.choice(CITIES), "order_id": order_id(r),
         "product": product or r.choice(HARDWARE if hardware else ACCOUNTS), "when": r.choice(WHEN),
         "want": r.choice(WANTS), "has_order": r.random() < .7}
    core = KINDS[kind][0](r, t, hardware)
    t["priority"] = ("high" if t["issue"] in UNSAFE else "low" if kind in ("praise", "neutral") else "normal")
    sentences = [core.format(When=t["when"].capitalize(), **t)]
    if t["has_order"]:
        sentences.append(r.choice(["My order number is {order_id}.", "Order {order_id}.",
                                   "The order was {order_id}."]).format(**t))
    if kind in ("complaint", "delivery"):
        asks = ["I would like {want}.", "I want {want}.", "Could I get {want}?"]
        sentences.append(r.choice(asks[:2] if t["want"].startswith("to ") else asks).format(**t))
    else:
        t["want"] = ""
    count = r.choice([0, 1, 2, 3, 4, 6]) if fillers is None else fillers
    for filler in r.sample(FILLERS, count):
        sentences.insert(r.randrange(len(sentences) + 1), filler.format(city=t["city"]))
    greeting = r.choice(GREETINGS)
    t["text"] = " ".join(([greeting] if greeting else []) + sentences + [r.choice(CLOSINGS).format(name=t["customer"])])
    return t


def summary(t):
    """What somebody else says of the message: in the third person."""
    says = {"complaint": "reports that the {product} {issue} {when} and wants {want}.",
            "delivery": "reports that the {product} {issue} and wants {want}.",
            "praise": "is happy: the {product} {issue}.",
            "neutral": "notes that the {product} {issue}."}[t["kind"]]
    text = (t["customer"] + " " + says).format(**t)
    for own, others in (("locks me out", "locks them out"), ("my password", "their password"),
                        ("all my photos", "all their photos"), ("logging me out", "logging them out"),
                        ("saved me hours", "saved them hours"), ("than I hoped", "than they hoped")):
        text = text.replace(own, others)
    return text


def notes(t, keys):
    return "\n".join(f"{k}: {t[k] or 'none'}" for k in keys)


# ---- examples of one turn ----

def one_turn(prompt, reasoning, answer):
    return {"prompt": prompt, "reasoning": reasoning, "answer": answer}


def summarize(r):
    t = ticket(r)
    ask = r.choice(["Summarize the following text."] * 3 + ["Summarize this message in one sentence.",
                                                             "Give a one sentence summary."])
    return one_turn(f"{ask}\n\n{t['text']}", notes(t, ["customer", "product", "issue", "when", "want"]), summary(t))


def summarize_several(r):
    """The reasoning takes one message after the other, so that none is mixed up with its neighbour."""
    messages = [ticket(r, fillers=r.choice([0, 1])) for _ in range(r.choice([2, 2, 3]))]
    reasoning = [f"There are {len(messages)} messages."]
    for i, t in enumerate(messages, 1):
        reasoning.append(f"{i}. {t['customer']}: {t['product']}, {t['issue']}, {t['when'] or 'none'}, "
                         f"{t['want'] or 'none'}")
    return one_turn("Summarize the following text.\n\n" + "\n\n".join(t["text"] for t in messages),
                    "\n".join(reasoning), " ".join(summary(t) for t in messages))


def labels_of(r, t, kind):
    labels = LABELS[kind][:]
    r.shuffle(labels)
    if kind == "category" and r.random() < .4:
        fewer = [label for label in labels if label == t[kind] or r.random() < .5]
        labels = fewer if len(fewer) > 1 else labels
    return labels


def classify(r):
    t = ticket(r)
    kind = r.choice(list(LABELS))
    return one_turn(f"Classify the following text as one of: {', '.join(labels_of(r, t, kind))}.\n\n{t['text']}",
                    f"product: {t['product']}\nissue: {t['issue']}\n{kind}: {t[kind]}", t[kind])


def classify_by_word(r):
    """The label is what the text speaks of: a product, a city or a word that was never there before."""
    which = r.choice(["product", "customer", "made up", "made up"])
    t = ticket(r, product=made_up_word(r) if which == "made up" else None)
    right = t["customer"] if which == "customer" else t["product"]
    others = {"product": HARDWARE + ACCOUNTS, "customer": NAMES}.get(which) or [made_up_word(r) for _ in range(6)]
    labels = r.sample(sorted(set(others) - {right}), r.choice([1, 2, 3, 4])) + [right]
    r.shuffle(labels)
    return one_turn(f"Classify the following text as one of: {', '.join(labels)}.\n\n{t['text']}",
                    f"The text speaks of: {right}", right)


def yes_or_no(r):
    t = ticket(r)
    ask, truth = r.choice([("the customer wants a refund", t["want"] == "a refund"),
                           ("the customer is unhappy", t["sentiment"] == "negative"),
                           ("the product is unsafe", t["priority"] == "high"),
                           ("the message mentions an order number", t["has_order"]),
                           ("it is about a delivery", t["category"] == "delivery")])
    return one_turn(f"Answer yes or no: {ask}.\n\n{t['text']}",
                    f"issue: {t['issue']}\nwant: {t['want'] or 'none'}\n"
                    f"order: {t['order_id'] if t['has_order'] else 'none'}", "yes" if truth else "no")


def field(t, key):
    """What the text says of it, or None."""
    return t["order_id"] if key == "order_id" and t["has_order"] else None if key == "order_id" else t[key] or None


def extract(r):
    t = ticket(r)
    keys = r.sample(["product", "issue", "order_id", "customer", "want"], r.choice([1, 2, 3, 4]))
    values = {k: field(t, k) for k in keys}
    return one_turn(f"Extract {', '.join(keys)} as JSON.\n\n{t['text']}", notes(values, keys), json.dumps(values))


def repeat(r):
    """What nobody has said before, word by word: that is what copying is learnt from."""
    makers = [made_up_word, made_up_word, order_id, lambda r: r.choice(NAMES), lambda r: str(r.randrange(10000))]
    text = " ".join(r.choice(makers)(r) for _ in range(r.choice([1, 2, 3, 5, 8])))
    ask = r.choice(["Repeat the following text.", "Say this again, word by word."])
    return one_turn(f"{ask}\n\n{text}", f"The text is: {text}", text)


def add(r):
    most = r.choice([10, 100, 100, 1000, 1000])
    a, b = r.randrange(most), r.randrange(most)
    steps, carry, x, y = [], 0, a, b
    while x or y or not steps:
        total = x % 10 + y % 10 + carry
        steps.append(f"{x % 10} + {y % 10} + {carry} = {total}, write {total % 10}, carry {total // 10}")
        carry, x, y = total // 10, x // 10, y // 10
    if carry:
        steps.append(f"carry {carry}")
    ask = r.choice(["What is {a} + {b}?", "What is {a} plus {b}?", "Add {a} and {b}."])
    return one_turn(ask.format(a=a, b=b), "\n".join(steps), str(a + b))


def codes_in_text(r, fillers):
    rooms = r.sample(ROOMS, r.choice([2, 3, 4, 6]))
    codes = {room: "".join(r.choice("0123456789") for _ in range(4)) for room in rooms}
    sentences = [f"The code of the {room} is {code}." for room, code in codes.items()]
    sentences += [f.format(city=r.choice(CITIES)) for f in r.choices(FILLERS, k=fillers)]
    r.shuffle(sentences)
    return codes, " ".join(sentences)


def quoted(room, code):
    """Thinking that copies a sentence, or says that there is none: what finding is learnt from, once in a lifetime."""
    return f"The text says: The code of the {room} is {code}." if code else f"The text has no code of the {room}."


def named(room, code):
    """Thinking that says behind the name what follows there: where nothing does, a model comes to see that soon."""
    return f"The code of the {room}: {code or 'none'}"


def code_of(r, codes, thinking):
    """A question about one room of the text, or about one that is not there; what there is to think, and the answer."""
    room = r.choice(list(codes)) if r.random() < .8 else r.choice([x for x in ROOMS if x not in codes])
    code = codes.get(room)
    return f"What is the code of the {room}?", thinking(room, code), code or NOT_SAID


def find_fact(r, thinking=named, fillers=None):
    """In up to 2,000 tokens."""
    codes, text = codes_in_text(r, fillers or round(2 ** r.uniform(1, 7.8)))
    ask, reasoning, answer = code_of(r, codes, thinking)
    return one_turn(f"{text}\n\n{ask}", reasoning, answer)


def find_near_fact(r, thinking=named):
    """The same in a few sentences: what there is to be learnt of it, in fewer tokens."""
    return find_fact(r, thinking, fillers=r.randrange(1, 8))


def find_far_fact(r, thinking=named):
    """The same in about 2,000 tokens."""
    return find_fact(r, thinking, fillers=r.randrange(200, 230))


def find_facts(r, thinking=named):
    """Several questions, one after the other, about one text."""
    codes, text = codes_in_text(r, round(2 ** r.uniform(0, 6)))
    messages = []
    for _ in range(r.choice([2, 3, 4])):
        ask, reasoning, answer = code_of(r, codes, thinking)
        messages += [asked(ask if messages else f"{text}\n\n{ask}"), said(reasoning, answer)]
    return {"messages": messages}


QUESTIONS = {"order_id": "What is the order number?", "want": "What does the customer want?",
             "customer": "Who wrote this?", "product": "Which product is it about?",
             "issue": "What does it say about the product?"}


def ask_field(r):
    t = ticket(r)
    key = r.choice(["order_id", "order_id", "want", "want", "customer", "product"])
    value = field(t, key)
    return one_turn(f"{t['text']}\n\n{QUESTIONS[key]}", f"{key}: {value or 'none'}", value or NOT_SAID)


SMALL_TALK = [("Hello", "A greeting.", "Hello! How can I help you?"),
              ("Who are you?", "A question about me.",
               "I am a small MiniMax-M1 style model running inside PostgreSQL."),
              ("What can you do?", "A question about my abilities.",
               "I can summarize, classify and extract from short messages, add numbers, and find facts in a text."),
              ("Thank you", "Thanks.", "You are welcome."),
              ("Where do you run?", "A question about me.", "I run inside PostgreSQL, in a background worker."),
              ("Good morning", "A greeting.", "Good morning! How can I help you?")]


def small_talk(r):
    ask, reasoning, answer = r.choice(SMALL_TALK)
    return one_turn(ask + r.choice([""] if ask.endswith("?") else ["", "", ".", "!"]), reasoning, answer)


# ---- conversations ----

def said(reasoning, answer):
    return {"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n\n{answer}"}


def asked(text):
    return {"role": "user", "content": text}


def three_turns(r):
    """A message first, then questions about it that do not repeat it."""
    t = ticket(r)
    first = r.choice(["summarize", "classify"])
    kind = r.choice(list(LABELS))
    if first == "summarize":
        messages = [asked(f"Summarize the following text.\n\n{t['text']}"),
                    said(notes(t, ["customer", "product", "issue", "when", "want"]), summary(t))]
    else:
        messages = [asked(f"Classify the following text as one of: {', '.join(labels_of(r, t, kind))}.\n\n{t['text']}"),
                    said(f"product: {t['product']}\nissue: {t['issue']}\n{kind}: {t[kind]}", t[kind])]
    for key in r.sample(list(QUESTIONS), 2):
        value = field(t, key)
        messages += [asked(QUESTIONS[key]), said(f"{key}: {value or 'none'}", value or NOT_SAID)]
    return {"messages": messages}


def definition(name, description, parameter):
    return {"name": name, "description": description,
            "parameters": {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}}


TOOLS = {d["name"]: d for d in [definition("get_weather", "Current weather of a city", "city"),
                                definition("lookup_order", "Status of an order", "order_id"),
                                definition("get_price", "Price of a product", "product"),
                                definition("count_orders", "How many orders a customer has", "customer")]}
SKIES = ["sunny", "cloudy", "rainy", "snowy", "windy", "foggy"]
STATES = ["packed", "shipped", "delivered", "lost", "returned", "delayed"]


def weather(r):
    city, sky, degrees = r.choice(CITIES), r.choice(SKIES), r.randrange(-9, 36)
    ask = r.choice(["What is the weather in {}?", "How is the weather in {} today?"])
    return (ask, "get_weather", "city", city, {"sky": sky, "degrees": degrees},
            f"It is {sky} in {city}, at {degrees} degrees.")


def order_state(r):
    order, state = order_id(r), r.choice(STATES)
    ask = r.choice(["Where is order {}?", "What is the status of order {}?"])
    if r.random() < .2:
        return ask, "lookup_order", "order_id", order, None, f"There is no order {order}."
    result = r.choice([{"status": state}, {"status": state}, {"order_id": order, "status": state}, state])
    return ask, "lookup_order", "order_id", order, result, f"Order {order} is {state}."


def price(r):
    product, euros = r.choice(HARDWARE), r.randrange(5, 500)
    ask = r.choice(["What does the {} cost?", "How much is the {}?"])
    return (ask, "get_price", "product", product, r.choice([{"price": euros}, euros]),
            f"The {product} costs {euros} euros.")


def orders_of(r):
    customer, count = r.choice(NAMES), r.randrange(2, 90)
    return ("How many orders does {} have?", "count_orders", "customer", customer,
            r.choice([{"orders": count}, count]), f"{customer} has {count} orders.")


def as_result(r, result):
    """As tools return things: JSON, alone or as the one row of a list, or a text as it is; nothing is null or no row."""
    if result is None:
        return r.choice(["null", "[]"])
    if not isinstance(result, dict):
        return str(result)
    return json.dumps(r.choice([result, [result]]))


def shown_tools(r, called):
    """Definitions of those that are called, and maybe others, as programs write them or as functions are described."""
    names = list(called) + [name for name in TOOLS if name not in called and r.random() < .3]
    r.shuffle(names)
    closed = {"additionalProperties": False} if r.random() < .5 else {}
    return [dict(TOOLS[name], parameters={**TOOLS[name]["parameters"], **closed}) for name in names]


def calls_text(calls):
    return "<tool_calls>\n" + "".join(json.dumps(call) + "\n" for call in calls) + "</tool_calls>"


def call_tools(r):
    """A question, a call or two, their results, and a sentence; sometimes only up to the calls, or another question."""
    messages, called = [], set()
    for turn in range(r.choice([1, 1, 2])):
        wanted = [r.choice([weather, order_state, order_state, price, orders_of])(r)
                  for _ in range(1 if turn or r.random() < .7 else 2)]
        calls = [{"name": name, "arguments": {key: value}} for _, name, key, value, _, _ in wanted]
        called.update(call["name"] for call in calls)
        messages.append(asked(" ".join(ask.format(value) for ask, _, _, value, _, _ in wanted)))
        messages.append(said("\n".join(f"I should call {c['name']}." for c in calls), calls_text(calls)))
        if turn == 0 and r.random() < .25:
            break
        results = [as_result(r, result) for _, _, _, _, result, _ in wanted]
        messages += [{"role": "tool", "name": call["name"], "content": result} for call, result in zip(calls, results)]
        messages.append(said("\n".join(f"{value}: {result}" for (_, _, _, value, _, _), result in zip(wanted, results)),
                             " ".join(answer for _, _, _, _, _, answer in wanted)))
    return {"messages": messages, "tools": shown_tools(r, sorted(called))}


def talk_beside_tools(r):
    """Nothing is asked that a tool could tell."""
    talk = small_talk(r)
    return {"messages": [asked(talk["prompt"]), said(talk["reasoning"], talk["answer"])],
            "tools": shown_tools(r, [r.choice(list(TOOLS))])}


# ---- all of them ----

# Each with its shares of the examples in the two phases: in the second, what is learnt slowly comes more often.
TASKS = {"summarize": (summarize, 4, 2), "summarize_several": (summarize_several, 4, 3), "classify": (classify, 3, 2),
         "classify_by_word": (classify_by_word, 4, 6), "yes_or_no": (yes_or_no, 2, 3), "extract": (extract, 3, 2.5),
         "repeat": (repeat, 4, 4), "add": (add, 4, 4), "find_fact": (find_fact, 3, 4),
         "find_near_fact": (find_near_fact, 4, 3), "find_far_fact": (find_far_fact, .3, 1),
         "find_facts": (find_facts, 4, 4), "ask_field": (ask_field, 2, 2), "small_talk": (small_talk, .3, .7),
         "three_turns": (three_turns, 3, 4), "call_tools": (call_tools, 6, 10),
         "talk_beside_tools": (talk_beside_tools, 0, .5)}
FINDS = {"find_fact", "find_near_fact", "find_far_fact", "find_facts"}
AT_ONCE = .04  # of the replies of phase 2 do without their reasoning: few enough for none to be likely
NEEDS_REASONING = {"add"}
BY_HEART = {"small_talk", "talk_beside_tools"}  # whose few questions are all learnt


def example(r, task):
    return TASKS[task][0](r)


def any_example(r, phase):
    """An example of any task, by the shares of phase 1 or 2."""
    task = r.choices(list(TASKS), [shares[phase] for shares in TASKS.values()])[0]
    if phase == 1:
        return TASKS[task][0](r, quoted) if task in FINDS else example(r, task)
    made = example(r, task)
    if "prompt" in made and task not in NEEDS_REASONING and r.random() < AT_ONCE:
        made["reasoning"] = ""
    return made


def training_examples(seed, phase, count):
    """What a phase learns from: the same seed gives the same examples."""
    r = source(seed, "train")
    return (any_example(r, phase) for _ in range(count))


def source(seed, part):
    """A random source of one part of the data: "train" and "test" have nothing in common but by chance."""
    return random.Random(f"m1-nano {seed} {part}")
