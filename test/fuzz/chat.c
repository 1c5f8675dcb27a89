/*
 * chat.c - conversations: whatever their texts hold, the turns are those that the messages make, and what comes before a
 * bound does not depend on what follows it.
 */
#include "lib/fuzz.h"

#include <jansson.h>
#include <string.h>

#include "lib/nano.h"
#include "lib/schema_text.h"
#include "text/chat.h"
#include "text/markup.h"

static const char *const texts[] = {"Hello.",
									"",
									M1_TURN_OPEN,
									M1_TURN_CLOSE "\n",
									"<begin_of_document>",
									"<think>a</think>\n\n",
									M1_CALLS_OPEN "\n{\"name\": \"f\", \"arguments\": {}}\n" M1_CALLS_CLOSE,
									"ai name=assistant\n",
									"\xF0\x9F\x98\x80 \xC3\xA4",
									"  \n\n",
									M1_TOOLS_CLOSE,
									NULL};

/* What a conversation says, or, to compare with, the same one that says nothing but x. */
static json_t *
words(fuzz_input *in, bool tame)
{
	const char *text = fuzz_one_of(in, texts);
	m1_buf raw = fuzz_text(fuzz_take(in, fuzz_below(in, 8)));
	json_t *both = json_sprintf("%s%s", text, raw.data);

	m1_buf_free(&raw);
	if (!tame)
		return both;
	json_decref(both);
	return json_string("x");
}

static json_t *
content(fuzz_input *in, bool tame)
{
	json_t *parts;

	if (fuzz_below(in, 4) > 0)
		return words(in, tame);
	parts = json_array();
	for (uint32_t n = fuzz_below(in, 3); n > 0; n--)
	{
		json_t *part = json_object();

		json_object_set_new(part, "type", json_string("text"));
		json_object_set_new(part, "text", words(in, tame));
		json_array_append_new(parts, part);
	}
	return parts;
}

static json_t *
call(fuzz_input *in, bool tame)
{
	json_t *one = json_object();

	json_object_set_new(one, "name", words(in, tame));
	json_object_set_new(one, "arguments", json_object());
	return one;
}

static json_t *
message(fuzz_input *in, bool tame)
{
	static const char *const roles[] = {"user", "assistant", "tool", "system", NULL};
	json_t *m = json_object();

	json_object_set_new(m, "role", json_string(fuzz_one_of(in, roles)));
	if (fuzz_below(in, 16) < 15)
		json_object_set_new(m, "content", content(in, tame));
	if (fuzz_below(in, 3) == 2)
		json_object_set_new(m, "name", words(in, tame));
	if (fuzz_below(in, 8) == 7)
	{
		json_object_set_new(m, "tool_calls", json_array());
		json_array_append_new(json_object_get(m, "tool_calls"), call(in, tame));
	}
	if (fuzz_below(in, 32) == 31)
		json_object_set_new(m, "extra", json_value_make(in, 2));
	return m;
}

static m1_buf
messages(fuzz_input *in, bool tame)
{
	json_t *list = json_array();

	for (uint32_t n = fuzz_below(in, 6); n > 0; n--)
		json_array_append_new(list, message(in, tame));
	return json_text_of(list);
}

static m1_buf
tools(fuzz_input *in, bool tame)
{
	json_t *list = json_array();

	for (uint32_t n = fuzz_below(in, 3); n > 0; n--)
	{
		json_t *tool = json_object();

		json_object_set_new(tool, "name", words(in, tame));
		json_object_set_new(tool, "parameters", tame ? json_object() : json_value_make(in, 3));
		json_array_append_new(list, tool);
	}
	return json_text_of(list);
}

/* How many control tokens there are, and that they open and close turns. */
static size_t
check_turns(const m1_ids *ids)
{
	const m1_tokenizer *t = nano_tokenizer();
	size_t control = 0;
	bool open = false;

	for (size_t i = 0; i < ids->len; i++)
	{
		if (!m1_tokenizer_is_special(t, ids->data[i]))
			continue;
		control++;
		if (ids->data[i] == m1_tokenizer_added_id(t, M1_TURN_OPEN))
		{
			fuzz_check(!open, "a turn in a turn");
			open = true;
		}
		else if (ids->data[i] == m1_tokenizer_added_id(t, M1_TURN_CLOSE))
		{
			fuzz_check(open, "the end of no turn");
			open = false;
		}
		else
			fuzz_check(i == 0, "control token %d at %zu", ids->data[i], i);
	}
	fuzz_check(open, "no turn is open for the answer");
	return control;
}

static m1_status
render(const m1_chat *chat, m1_ids *ids, m1_chat_bounds *bounds)
{
	m1_error err;
	const m1_status status = m1_chat_render(nano_tokenizer(), chat, ids, bounds, &err);

	if (status != M1_OK)
		fuzz_check_error(status, &err);
	else
		fuzz_check(bounds->system <= bounds->history && bounds->history <= bounds->template &&
					   bounds->template <= ids->len,
				   "bounds %zu, %zu, %zu of %zu", bounds->system, bounds->history, bounds->template, ids->len);
	return status;
}

static m1_slice
slice(const m1_buf *b)
{
	return (m1_slice){b->data, b->len};
}

/* A prompt whose template is followed by this, or by something else. */
static void
check_prompt(fuzz_input *in)
{
	m1_buf begin = fuzz_text(fuzz_take(in, fuzz_below(in, 32)));
	m1_buf rest = fuzz_text(fuzz_rest(in));
	m1_buf prompts[2] = {{0}};
	m1_ids ids[2] = {{0}};
	m1_chat_bounds bounds[2];

	for (int i = 0; i < 2; i++)
	{
		m1_chat chat = {.template_len = begin.len};

		m1_buf_append(&prompts[i], begin.data, begin.len);
		m1_buf_append(&prompts[i], i == 0 ? rest.data : "other", i == 0 ? rest.len : 5);
		chat.prompt = slice(&prompts[i]);
		fuzz_check(render(&chat, &ids[i], &bounds[i]) == M1_OK, "a prompt is refused");
		check_turns(&ids[i]);
	}
	/* a token may reach over the template's end: then fewer are common */
	fuzz_check(bounds[0].history == bounds[1].history &&
				   memcmp(ids[0].data, ids[1].data, bounds[0].history * sizeof *ids[0].data) == 0,
			   "what comes before the prompt depends on it");
	for (int i = 0; i < 2; i++)
	{
		m1_ids_free(&ids[i]);
		m1_buf_free(&prompts[i]);
	}
	m1_buf_free(&begin);
	m1_buf_free(&rest);
}

static void
check_messages(fuzz_input *in)
{
	fuzz_input again = *in;
	m1_buf said[2] = {messages(in, false), messages(&again, true)};
	m1_buf offered[2] = {tools(in, false), tools(&again, true)};
	m1_ids ids[2] = {{0}};
	m1_chat_bounds bounds;
	m1_status status[2];

	for (int i = 0; i < 2; i++)
	{
		const m1_chat chat = {.messages = slice(&said[i]), .tools = slice(&offered[i])};

		status[i] = render(&chat, &ids[i], &bounds);
	}
	if (status[0] == M1_OK && status[1] == M1_OK)
	{
		const size_t wild = check_turns(&ids[0]);
		const size_t tame = check_turns(&ids[1]);

		/* a system message that says nothing has no turn */
		fuzz_check(wild == tame || wild + 2 == tame, "%zu control tokens instead of %zu", wild, tame);
	}
	for (int i = 0; i < 2; i++)
	{
		m1_ids_free(&ids[i]);
		m1_buf_free(&said[i]);
		m1_buf_free(&offered[i]);
	}
}

void
fuzz_one(fuzz_input *in)
{
	switch (fuzz_below(in, 4))
	{
		case 0:
			check_prompt(in);
			break;
		case 1:
		{
			/* what is no conversation at all */
			const m1_slice raw = fuzz_rest(in);
			const m1_chat chat = {.messages = raw, .tools = raw};
			m1_ids ids = {0};
			m1_chat_bounds bounds;

			render(&chat, &ids, &bounds);
			m1_ids_free(&ids);
			break;
		}
		default:
			check_messages(in);
	}
}
