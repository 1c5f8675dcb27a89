/*
 * chat.c - see chat.h.
 *
 * A prompt is a list of control tokens with runs of text between them. A run joins markup and content ("user
 * name=user\n" + text) before it is encoded, because pre-tokens may span the seam; no control token is recognised
 * inside a run.
 */
#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/least.h"
#include "base/sort.h"
#include "text/calls.h"
#include "text/jsontext.h"
#include "text/markup.h"
#include "text/tools.h"

#define PIECE ((size_t) 1 << 20) /* of a text, that is copied at once */

/* A call that the assistant has made, for the tool message that answers it. */
typedef struct call
{
	m1_slice id, name;
	size_t message;
} call;

typedef struct renderer
{
	const m1_tokenizer *t;
	m1_ids *ids;
	m1_work *work;
	m1_buf run;			   /* text since the last control token */
	m1_added_tokens added; /* what is recognised inside the run */
	m1_chat_bounds bounds;
	size_t template_end; /* bytes of the run up to the end of the template; 0 = the run has none */
	bool hides_tools;
	m1_ids *replies; /* NULL, or where the assistant's words begin and end */
	call *calls;	 /* [n_calls], by id and message */
	size_t n_calls;
	m1_status status; /* the first failure */
	m1_error *err;
} renderer;

/* ---- runs and control tokens ---- */

/* Looks up between pieces: where memory is new, a long text takes a while. */
static void
text(renderer *r, m1_slice s)
{
	for (size_t at = 0, n; r->status == M1_OK && at < s.len; at += n)
	{
		n = m1_min_size(s.len - at, PIECE);
		if (!m1_buf_append(&r->run, s.data + at, n))
			r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the prompt");
		else if (n == PIECE && !m1_work_goes_on(r->work, 0))
			r->status = m1_work_stopped(r->work, "the prompt", r->err);
	}
}

static void
markup(renderer *r, const char *s)
{
	text(r, m1_slice_of(s));
}

/*
 * The template's text may end inside a token of the whole: what follows can change its last pre-token. The bound is
 * where the ids of the whole, from `first` on, begin to differ from those of the template alone.
 */
static void
find_template(renderer *r, size_t first)
{
	m1_ids alone = {0};
	size_t n = 0;

	r->status =
		m1_tokenizer_encode(r->t, (m1_slice){r->run.data, r->template_end}, r->added, &alone, NULL, r->work, r->err);
	if (r->status == M1_OK)
		while (n < alone.len && first + n < r->ids->len && alone.data[n] == r->ids->data[first + n])
			n++;
	r->bounds.template = first + n;
	m1_ids_free(&alone);
}

static void
flush(renderer *r)
{
	const size_t first = r->ids->len;

	if (r->status == M1_OK)
		r->status =
			m1_tokenizer_encode(r->t, (m1_slice){r->run.data, r->run.len}, r->added, r->ids, NULL, r->work, r->err);
	if (r->status == M1_OK && r->template_end > 0)
		find_template(r, first);
	r->template_end = 0;
	r->run.len = 0;
	r->added = M1_ADDED_NONE;
}

static void
control(renderer *r, const char *token)
{
	int32_t id = m1_tokenizer_added_id(r->t, token);

	flush(r);
	if (r->status != M1_OK)
		return;
	if (id < 0)
		r->status = m1_fail(r->err, M1_E_UNSUPPORTED, "the tokenizer has no token \"%s\" for chats", token);
	else if (!m1_tokenizer_is_special(r->t, id))
		/* it would be recognised in the assistant's earlier words */
		r->status = m1_fail(r->err, M1_E_UNSUPPORTED, "the tokenizer's \"%s\" is not a control token", token);
	else if (!m1_ids_push(r->ids, id))
		r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the prompt");
}

static void
open_turn(renderer *r, const char *header)
{
	control(r, M1_TURN_OPEN);
	markup(r, header);
}

static void
close_turn(renderer *r)
{
	control(r, M1_TURN_CLOSE);
	markup(r, "\n");
}

static void
bad(renderer *r, const char *where, const char *why)
{
	if (r->status != M1_OK)
		return;
	r->status = m1_fail(r->err, M1_E_INVALID_ARGUMENT, "%s %s", where, why);
	m1_error_hint(r->err, "messages is an array of {\"role\": \"system\"|\"user\"|\"assistant\"|\"tool\", "
						  "\"content\": text}.");
}

/* Whatever is not understood might change the prompt. */
static void
check_keys(renderer *r, const m1_json *object, const char *const *keys, const char *where)
{
	const char *key = m1_json_other_key(object, keys);
	char why[128];

	if (key == NULL)
		return;
	snprintf(why, sizeof why, "has a key that is not known, \"%.60s\"", key);
	bad(r, where, why);
}

/* ---- tools ---- */

static void
tool(renderer *r, const m1_json *definition, size_t i)
{
	m1_tool t;

	if (r->status != M1_OK || (r->status = m1_tool_read(definition, i, &t, r->err)) != M1_OK)
		return;
	/* whoever has them as jsonb has another order of keys: render all definitions in the usual one */
	if (!m1_json_write(&r->run, t.definition, M1_JSON_TOOL))
		r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the tools");
	markup(r, "\n");
}

static void
parse_tools(renderer *r, m1_slice json, m1_json_doc *doc)
{
	*doc = (m1_json_doc){0};
	if (r->status == M1_OK && json.len > 0)
		r->status = m1_tools_parse(json, r->work, doc, r->err);
}

static void
check_tools(renderer *r, const m1_json *tools)
{
	size_t i = 0;
	m1_tool t;

	m1_json_foreach (tools, definition)
		if (r->status == M1_OK)
			r->status = m1_tool_read(definition, i++, &t, r->err);
}

static void
tools_turn(renderer *r, const m1_json *tools)
{
	size_t i = 0;

	if (m1_json_size(tools) == 0)
		return;
	r->bounds.tools = true;
	if (r->hides_tools)
	{
		check_tools(r, tools);
		return;
	}
	open_turn(r, "system tool_setting=tools\nYou are provided with these tools:\n" M1_TOOLS_OPEN "\n");
	m1_json_foreach (tools, definition)
		tool(r, definition, i++);
	markup(r, M1_TOOLS_CLOSE
		   "\n\nIf you need to call tools, please respond with " M1_CALLS_OPEN M1_CALLS_CLOSE
		   " XML tags, and provide tool-name and json-object of arguments, following the format below:\n");
	markup(r, M1_CALLS_OPEN "\n{\"name\": <tool-name>, \"arguments\": <args-json-object>}\n...\n" M1_CALLS_CLOSE);
	close_turn(r);
}

/* ---- messages ---- */

static void
parse_messages(renderer *r, m1_slice json, m1_json_doc *doc)
{
	*doc = (m1_json_doc){0};
	if (json.len == 0)
		return;
	if (json.len > M1_CHAT_MAX_BYTES)
		r->status =
			m1_fail(r->err, M1_E_UNSUPPORTED, "messages has %zu bytes: more than %zu", json.len, M1_CHAT_MAX_BYTES);
	else if ((r->status = m1_json_parse(json, "messages", r->work, doc, r->err)) == M1_OK &&
			 !m1_json_is(doc->root, M1_JSON_ARRAY))
		bad(r, "messages", "is not an array");
}

/* A part's text. */
static void
part(renderer *r, const m1_json *value, const char *const *keys, const char *where)
{
	const m1_json *type = m1_json_get(value, "type");
	const m1_json *words = m1_json_get(value, "text");

	if (!m1_json_is(words, M1_JSON_STRING) || (type != NULL && !m1_json_is_text(type, "text")))
		bad(r, where, "has content that is not text");
	check_keys(r, value, keys, where);
	text(r, m1_json_text(words));
}

/* The text of a message's content: a string, or an array of {"type": "text", "text": ...} parts. */
static void
content(renderer *r, const m1_json *message, const char *where)
{
	static const char *const keys[] = {"type", "text", NULL};
	const m1_json *value = m1_json_get(message, "content");

	if (m1_json_is(value, M1_JSON_STRING))
		text(r, m1_json_text(value));
	else if (m1_json_is(value, M1_JSON_ARRAY))
		m1_json_foreach (value, one)
			part(r, one, keys, where);
	else
		bad(r, where, "has no content");
}

/* ---- tool calls and their results ---- */

static int
by_id(const void *a, const void *b)
{
	const call *x = a;
	const call *y = b;
	const size_t len = x->id.len < y->id.len ? x->id.len : y->id.len;
	const int order = memcmp(x->id.data, y->id.data, len);

	if (order != 0 || x->id.len != y->id.len)
		return order != 0 ? order : x->id.len < y->id.len ? -1 : 1;
	return (x->message > y->message) - (x->message < y->message);
}

/* The calls of all messages that have an id. */
static void
list_calls(renderer *r, const m1_json *messages)
{
	size_t n = 0;
	size_t i = 0;

	m1_json_foreach (messages, message)
		n += m1_json_size(m1_json_get(message, "tool_calls"));
	if (n == 0 || r->status != M1_OK)
		return;
	if ((r->calls = malloc(n * sizeof *r->calls)) == NULL)
		r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the tool calls");
	m1_json_foreach (messages, message)
	{
		const m1_json *calls = m1_json_get(message, "tool_calls");

		m1_json_foreach (calls, one)
			if (r->calls != NULL && m1_call_id(one).len > 0)
				r->calls[r->n_calls++] = (call){m1_call_id(one), m1_call_name(one), i};
		i++;
	}
	m1_sort(r->calls, r->n_calls, sizeof *r->calls, by_id);
}

/* The last call with this id before message i; NULL when there is none. */
static const call *
find_call(const renderer *r, m1_slice id, size_t i)
{
	const call wanted = {.id = id, .message = i};
	size_t low = 0;
	size_t high = r->n_calls;

	while (low < high)
	{
		const size_t middle = low + (high - low) / 2;

		if (by_id(&r->calls[middle], &wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || r->calls[low - 1].id.len != id.len || memcmp(r->calls[low - 1].id.data, id.data, id.len) != 0)
		return NULL;
	return &r->calls[low - 1];
}

static bool
is_text_or_none(const m1_json *value)
{
	return value == NULL || m1_json_is(value, M1_JSON_STRING) || m1_json_is(value, M1_JSON_NULL);
}

/* The name of the tool whose result message i is: its own, or that of the call that it answers. */
static m1_slice
name_of_result(renderer *r, const m1_json *message, size_t i, const char *where)
{
	const m1_json *id = m1_json_get(message, "tool_call_id");
	m1_slice name = m1_json_text(m1_json_get(message, "name"));
	const call *answered;

	if (!is_text_or_none(m1_json_get(message, "name")))
		bad(r, where, "has a name that is not a text");
	if (!is_text_or_none(id))
		bad(r, where, "has a tool_call_id that is not a text");
	if (m1_json_text(id).len == 0)
		return name;
	answered = find_call(r, m1_json_text(id), i);
	if (name.len == 0 && answered == NULL)
		bad(r, where, "has a tool_call_id that no tool call before it has");
	else if (answered != NULL && name.len > 0 &&
			 (answered->name.len != name.len || memcmp(answered->name.data, name.data, name.len) != 0))
		bad(r, where, "has another name than the tool call with its tool_call_id");
	return name.len == 0 && answered != NULL ? answered->name : name;
}

static void
open_result(renderer *r, m1_slice name, const char *where)
{
	if (name.len == 0)
		bad(r, where, "is a tool result without a name");
	markup(r, "tool name: ");
	text(r, name);
	markup(r, "\ntool result: ");
}

/* Each part may be the result of a tool that it names. */
static void
tool_results(renderer *r, const m1_json *message, size_t i, const char *where)
{
	static const char *const keys[] = {"type", "text", "name", NULL};
	const m1_slice name = name_of_result(r, message, i, where);
	const m1_json *parts = m1_json_get(message, "content");

	if (m1_json_get(m1_json_at(parts, 0), "name") == NULL || name.len > 0)
	{
		open_result(r, name, where);
		content(r, message, where);
		markup(r, "\n\n");
		return;
	}
	m1_json_foreach (parts, one)
	{
		open_result(r, m1_json_text(m1_json_get(one, "name")), where);
		part(r, one, keys, where);
		markup(r, "\n\n");
	}
}

/* What the assistant said, and then the calls that it made, in the form that it writes them in. */
static void
answer(renderer *r, const m1_json *message, const char *where)
{
	const m1_json *calls = m1_json_get(message, "tool_calls");
	const m1_json *said = m1_json_get(message, "content");
	const size_t start = r->run.len;
	size_t i = 0;

	if (calls != NULL && !m1_json_is(calls, M1_JSON_ARRAY) && !m1_json_is(calls, M1_JSON_NULL))
		bad(r, where, "has tool_calls that are not an array");
	if (m1_json_size(calls) == 0 || (said != NULL && !m1_json_is(said, M1_JSON_NULL)))
		content(r, message, where);
	if (m1_json_size(calls) == 0)
		return;
	if (r->run.len > start && r->run.data[r->run.len - 1] != '\n')
		markup(r, "\n");
	markup(r, M1_CALLS_OPEN "\n");
	m1_json_foreach (calls, one)
	{
		char place[80];

		snprintf(place, sizeof place, "%s.tool_calls[%zu]", where, i++);
		if (r->status == M1_OK)
			r->status = m1_call_write(one, place, &r->run, r->err);
	}
	markup(r, M1_CALLS_CLOSE);
}

/* ---- turns ---- */

static bool
has_role(const m1_json *message, const char *role)
{
	return m1_json_is_text(m1_json_get(message, "role"), role);
}

/* Newer clients call it developer. */
static bool
is_system(const m1_json *message)
{
	return has_role(message, "system") || has_role(message, "developer");
}

/* The first and the last of these set the bounds of system and history. */
static void
open_message(renderer *r, const char *header)
{
	open_turn(r, header);
	/* Not the header's ids: its last token may reach into the message's text. */
	if (r->bounds.system == 0)
		r->bounds.system = r->ids->len;
}

static void
open_user_turn(renderer *r)
{
	open_message(r, "user name=user\n");
	r->bounds.history = r->bounds.template = r->ids->len;
}

/* A bound of the assistant's words: what is here is encoded by itself. */
static void
mark_reply(renderer *r)
{
	if (r->replies == NULL)
		return;
	flush(r);
	if (r->status == M1_OK && !m1_ids_push(r->replies, (int32_t) r->ids->len))
		r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the prompt");
}

static void
assistant_turn(renderer *r, const m1_json *message, const char *where)
{
	open_message(r, "ai name=assistant\n");
	mark_reply(r);
	if (r->replies != NULL)
		r->added = M1_ADDED_PLAIN; /* what it is to write: its <think> is a token */
	answer(r, message, where);
	control(r, M1_TURN_CLOSE);
	mark_reply(r);
	markup(r, "\n");
}

static void
message_turn(renderer *r, const m1_json *message, size_t i)
{
	static const char *const plain[] = {"role", "content", NULL};
	/* what it thought before is not shown to it again */
	static const char *const assistant[] = {"role", "content", "tool_calls", "reasoning", "reasoning_content", NULL};
	static const char *const learnt[] = {"role", "content", "tool_calls", NULL};
	static const char *const tool_keys[] = {"role", "content", "name", "tool_call_id", NULL};
	char where[40];

	snprintf(where, sizeof where, "messages[%zu]", i);
	if (is_system(message))
		return; /* all of them are in the first turn */
	if (has_role(message, "user"))
	{
		open_user_turn(r);
		check_keys(r, message, plain, where);
		content(r, message, where);
	}
	else if (has_role(message, "assistant"))
	{
		check_keys(r, message, r->replies == NULL ? assistant : learnt, where);
		assistant_turn(r, message, where);
		return;
	}
	else if (has_role(message, "tool"))
	{
		open_message(r, "tool name=tools\n");
		check_keys(r, message, tool_keys, where);
		tool_results(r, message, i, where);
	}
	else
		bad(r, where, "has a role that is not system, user, assistant or tool");
	close_turn(r);
}

/* The texts of all system messages, one after the other; false when there is no such message. */
static bool
system_messages(renderer *r, const m1_json *messages)
{
	static const char *const keys[] = {"role", "content", NULL};
	bool any = false;
	size_t i = 0;

	m1_json_foreach (messages, message)
	{
		char where[40];

		snprintf(where, sizeof where, "messages[%zu]", i++);
		if (!is_system(message))
			continue;
		any = true;
		check_keys(r, message, keys, where);
		content(r, message, where);
	}
	return any;
}

/* One turn for all of them, or none when they say nothing. */
static void
system_turn(renderer *r, const m1_json *messages, m1_slice fallback)
{
	m1_buf said;

	if (!system_messages(r, messages))
		text(r, fallback);
	said = r->run;
	r->run = (m1_buf){0};
	if (said.len > 0)
	{
		open_turn(r, "system ai_setting=assistant\n");
		text(r, (m1_slice){said.data, said.len});
		close_turn(r);
	}
	m1_buf_free(&said);
}

/* The turns after system and tools. */
static void
conversation(renderer *r, const m1_json *messages, const m1_chat *chat)
{
	size_t i = 0;

	m1_json_foreach (messages, message)
		message_turn(r, message, i++);
	if (messages != NULL)
		return;
	open_user_turn(r);
	if (chat->template_len > 0)
		r->template_end = r->run.len + chat->template_len;
	text(r, chat->prompt);
	close_turn(r);
}

static void
check_messages(renderer *r, const m1_json *messages)
{
	if (messages == NULL || r->status != M1_OK)
		return;
	if (m1_json_size(messages) > M1_CHAT_MAX_MESSAGES)
		r->status = m1_fail(r->err, M1_E_UNSUPPORTED, "messages has %zu messages: more than %d", m1_json_size(messages),
							M1_CHAT_MAX_MESSAGES);
	m1_json_foreach (messages, message)
		if (!is_system(message))
			return;
	bad(r, "messages", "holds no message from a user");
}

m1_status
m1_chat_render(const m1_tokenizer *t, const m1_chat *chat, m1_ids *ids, m1_chat_bounds *bounds, m1_error *err)
{
	renderer r = {.t = t,
				  .ids = ids,
				  .work = chat->work,
				  .hides_tools = chat->hides_tools,
				  .replies = chat->replies,
				  .status = M1_OK,
				  .err = err};
	m1_json_doc messages;
	m1_json_doc tools;

	parse_messages(&r, chat->messages, &messages);
	parse_tools(&r, chat->tools, &tools);
	check_messages(&r, messages.root);
	list_calls(&r, messages.root);
	control(&r, M1_DOCUMENT_OPEN);
	system_turn(&r, messages.root, chat->system);
	tools_turn(&r, tools.root);
	conversation(&r, messages.root, chat);
	if (chat->replies == NULL)
	{
		open_turn(&r, "ai name=assistant\n");
		flush(&r);
	}
	if (r.bounds.history < r.bounds.system) /* no user turn at all */
		r.bounds.history = r.bounds.template = r.bounds.system;
	*bounds = r.bounds;
	m1_json_free(&messages);
	m1_json_free(&tools);
	m1_buf_free(&r.run);
	free(r.calls);
	return r.status;
}
