/*
 * chat.c - see chat.h.
 *
 * A prompt is a list of control tokens with runs of text between them. A run joins markup and content ("user
 * name=user\n" + text) before it is encoded, because pre-tokens may span the seam; no control token is recognised
 * inside a run.
 */
#include "text/chat.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "text/jsontext.h"
#include "text/markup.h"

typedef struct renderer
{
	const m1_tokenizer *t;
	m1_ids *ids;
	m1_work *work;
	m1_buf run;			   /* text since the last control token */
	m1_added_tokens added; /* what is recognised inside the run */
	m1_chat_bounds bounds;
	size_t template_end; /* bytes of the run up to the end of the template; 0 = the run has none */
	m1_ids *replies;	 /* NULL, or where the assistant's words begin and end */
	m1_status status;	 /* the first failure */
	m1_error *err;
} renderer;

/* ---- runs and control tokens ---- */

static void
text(renderer *r, m1_slice s)
{
	if (r->status == M1_OK && !m1_buf_append(&r->run, s.data, s.len))
		r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the prompt");
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
						  "\"content\": text}; tools an array of {\"name\", \"description\", \"parameters\"}.");
}

/* ---- tools ---- */

static void
tool(renderer *r, const json_t *definition, size_t i)
{
	const json_t *function = json_object_get(definition, "function");
	char where[40];

	snprintf(where, sizeof where, "tools[%zu]", i);
	if (json_is_object(function))
		definition = function;
	if (!json_is_string(json_object_get(definition, "name")))
	{
		bad(r, where, "has no name");
		return;
	}
	/* jsonb forgets the order in which keys were written: render all definitions in the usual one */
	if (r->status == M1_OK && !m1_json_write(&r->run, definition, M1_JSON_TOOL))
		r->status = m1_fail(r->err, M1_E_NO_MEMORY, "out of memory for the tools");
	markup(r, "\n");
}

static json_t *
parse_array(renderer *r, const char *what, m1_slice json)
{
	json_error_t why;
	json_t *root;

	if (r->status != M1_OK || json.len == 0)
		return NULL;
	root = json_loadb(json.data, json.len, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_array(root))
	{
		bad(r, what, root == NULL ? "is not valid JSON" : "is not an array");
		if (root == NULL)
			m1_error_detail(r->err, "Line %d, column %d: %s.", why.line, why.column, why.text);
		json_decref(root);
		return NULL;
	}
	return root;
}

static void
tools_turn(renderer *r, const json_t *tools)
{
	size_t i;
	json_t *definition;

	if (json_array_size(tools) == 0)
		return;
	open_turn(r, "system tool_setting=tools\nYou are provided with these tools:\n" M1_TOOLS_OPEN "\n");
	json_array_foreach ((json_t *) tools, i, definition)
		tool(r, definition, i);
	markup(r, M1_TOOLS_CLOSE
		   "\n\nIf you need to call tools, please respond with " M1_CALLS_OPEN M1_CALLS_CLOSE
		   " XML tags, and provide tool-name and json-object of arguments, following the format below:\n");
	markup(r, M1_CALLS_OPEN "\n{\"name\": <tool-name>, \"arguments\": <args-json-object>}\n...\n" M1_CALLS_CLOSE);
	close_turn(r);
}

/* ---- messages ---- */

static m1_slice
json_slice(const json_t *s)
{
	m1_slice slice = {json_string_value(s), json_string_length(s)};

	return slice;
}

static bool
is_string(const json_t *value, const char *wanted)
{
	return json_is_string(value) && strcmp(json_string_value(value), wanted) == 0;
}

/* The text of a message's content: a string, or an array of {"type": "text", "text": ...} parts. */
static void
content(renderer *r, const json_t *message, const char *where)
{
	const json_t *value = json_object_get(message, "content");
	size_t i;
	json_t *part;

	if (json_is_string(value))
		text(r, json_slice(value));
	else if (json_is_array(value))
		json_array_foreach ((json_t *) value, i, part)
		{
			const json_t *type = json_object_get(part, "type");
			const json_t *words = json_object_get(part, "text");

			if (!json_is_string(words) || (type != NULL && !is_string(type, "text")))
				bad(r, where, "has content that is not text");
			else
				text(r, json_slice(words));
		}
	else
		bad(r, where, "has no content");
}

static void
tool_result(renderer *r, const json_t *message, const char *where)
{
	const json_t *name = json_object_get(message, "name");

	if (!json_is_string(name))
		bad(r, where, "is a tool result without a name");
	markup(r, "tool name: ");
	text(r, json_slice(name));
	markup(r, "\ntool result: ");
	content(r, message, where);
	markup(r, "\n\n");
}

static bool
has_role(const json_t *message, const char *role)
{
	return is_string(json_object_get(message, "role"), role);
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
assistant_turn(renderer *r, const json_t *message, const char *where)
{
	open_message(r, "ai name=assistant\n");
	mark_reply(r);
	r->added = M1_ADDED_PLAIN; /* the model's own words: its <think> is the token it wrote */
	content(r, message, where);
	control(r, M1_TURN_CLOSE);
	mark_reply(r);
	markup(r, "\n");
}

static void
message_turn(renderer *r, const json_t *message, size_t i)
{
	char where[40];

	snprintf(where, sizeof where, "messages[%zu]", i);
	if (has_role(message, "system"))
		return; /* all of them are in the first turn */
	if (has_role(message, "user"))
	{
		open_user_turn(r);
		content(r, message, where);
	}
	else if (has_role(message, "assistant"))
	{
		assistant_turn(r, message, where);
		return;
	}
	else if (has_role(message, "tool"))
	{
		open_message(r, "tool name=tools\n");
		tool_result(r, message, where);
	}
	else
		bad(r, where, "has a role that is not system, user, assistant or tool");
	close_turn(r);
}

/* The texts of all system messages, one after the other; false when there is no such message. */
static bool
system_messages(renderer *r, const json_t *messages)
{
	bool any = false;
	size_t i;
	json_t *message;

	json_array_foreach ((json_t *) messages, i, message)
	{
		char where[40];

		if (!has_role(message, "system"))
			continue;
		any = true;
		snprintf(where, sizeof where, "messages[%zu]", i);
		content(r, message, where);
	}
	return any;
}

/* One turn for all of them, or none when they say nothing. */
static void
system_turn(renderer *r, const json_t *messages, m1_slice fallback)
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
conversation(renderer *r, const json_t *messages, const m1_chat *chat)
{
	size_t i;
	json_t *message;

	json_array_foreach ((json_t *) messages, i, message)
		message_turn(r, message, i);
	if (messages != NULL)
		return;
	open_user_turn(r);
	if (chat->template_len > 0)
		r->template_end = r->run.len + chat->template_len;
	text(r, chat->prompt);
	close_turn(r);
}

static bool
any_turn(const json_t *messages)
{
	size_t i;
	json_t *message;

	json_array_foreach ((json_t *) messages, i, message)
		if (!has_role(message, "system"))
			return true;
	return false;
}

m1_status
m1_chat_render(const m1_tokenizer *t, const m1_chat *chat, m1_ids *ids, m1_chat_bounds *bounds, m1_error *err)
{
	renderer r = {.t = t, .ids = ids, .work = chat->work, .replies = chat->replies, .status = M1_OK, .err = err};
	json_t *messages = parse_array(&r, "messages", chat->messages);
	json_t *tools = parse_array(&r, "tools", chat->tools);

	if (messages != NULL && !any_turn(messages))
		bad(&r, "messages", "holds no message from a user");
	control(&r, M1_DOCUMENT_OPEN);
	system_turn(&r, messages, chat->system);
	tools_turn(&r, tools);
	conversation(&r, messages, chat);
	if (chat->replies == NULL)
	{
		open_turn(&r, "ai name=assistant\n");
		flush(&r);
	}
	if (r.bounds.history < r.bounds.system) /* no user turn at all */
		r.bounds.history = r.bounds.template = r.bounds.system;
	*bounds = r.bounds;
	json_decref(messages);
	json_decref(tools);
	m1_buf_free(&r.run);
	return r.status;
}
