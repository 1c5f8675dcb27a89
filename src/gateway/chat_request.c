/*
 * chat_request.c - the body of a request to /v1/chat/completions as a statement over complete or complete_stream; see
 * openai.h.
 *
 * A key is passed on, changes nothing whatever it says, or is refused by its name: nothing is dropped silently. Values
 * are checked by the database.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/jsonform.h"
#include "gateway/openai.h"
#include "text/jsontext.h"

typedef struct reading
{
	gw_statement *statement;
	gw_chat_options *options;
	gw_failure *failure;
} reading;

static bool
refuse(const reading *r, const char *message, const char *detail)
{
	gw_failure_set(r->failure, "22023", message, detail, NULL);
	return false;
}

static bool
add_text(reading *r, const char *name, m1_slice text, const char *type)
{
	gw_sql_argument(r->statement, name, text, type);
	return true;
}

static bool
add_json(reading *r, const char *name, const m1_json *value)
{
	m1_buf text = {0};

	m1_json_write(&text, value, M1_JSON_AS_GIVEN);
	r->statement->failed |= text.failed;
	add_text(r, name, (m1_slice){text.data, text.len}, "minimax_m1.json_text");
	m1_buf_free(&text);
	return true;
}

/* ---- keys of more than one form ---- */

static bool
take_stop(reading *r, const m1_json *value)
{
	m1_buf array = {0};
	const char *comma = "[";

	if (m1_json_is(value, M1_JSON_STRING))
		gw_json(&array, "[%j", value);
	else if (!m1_json_is(value, M1_JSON_ARRAY))
		return refuse(r, "stop is to be a string or an array of strings", NULL);
	m1_json_foreach (value, item)
	{
		if (!m1_json_is(item, M1_JSON_STRING))
		{
			m1_buf_free(&array);
			return refuse(r, "stop is to be a string or an array of strings", NULL);
		}
		gw_json(&array, "%r%j", m1_slice_of(comma), item);
		comma = ",";
	}
	m1_buf_puts(&array, array.len == 0 ? "[]" : "]");
	if (r->statement->in_call)
		gw_sql(r->statement, ", ");
	r->statement->in_call = true;
	gw_sql(r->statement, "stop => ARRAY(SELECT pg_catalog.json_array_elements_text(");
	gw_sql_value(r->statement, (m1_slice){array.data, array.len}, "json");
	gw_sql(r->statement, "))");
	m1_buf_free(&array);
	return true;
}

static bool
take_tool_choice(reading *r, const m1_json *value)
{
	m1_buf text = {0};

	if (m1_json_is(value, M1_JSON_STRING))
		return add_text(r, "tool_choice", m1_json_text(value), "text");
	m1_json_write(&text, value, M1_JSON_AS_GIVEN);
	r->statement->failed |= text.failed;
	add_text(r, "tool_choice", (m1_slice){text.data, text.len}, "text");
	m1_buf_free(&text);
	return true;
}

/* What a schema is given in, or has no place. */
static bool
take_schema(reading *r, const m1_json *format)
{
	static const char *const keys[] = {"name", "schema", "strict", "description", NULL};
	const m1_json *schema = m1_json_get(format, "schema");

	if (!m1_json_is(schema, M1_JSON_OBJECT))
		return refuse(r, "json_schema has no schema", NULL);
	if (m1_json_other_key(format, keys) != NULL)
		return refuse(r, "json_schema has an unknown key", m1_json_other_key(format, keys));
	return add_json(r, "json_schema", schema);
}

static bool
take_response_format(reading *r, const m1_json *value)
{
	static const char *const plain[] = {"type", NULL};
	static const char *const with_schema[] = {"type", "json_schema", NULL};
	const m1_json *type = m1_json_get(value, "type");
	const bool has_schema = m1_json_is_text(type, "json_schema");
	const char *other = m1_json_other_key(value, has_schema ? with_schema : plain);

	if (other != NULL)
		return refuse(r, "response_format has a key that its type does not have", other);
	if (has_schema)
		return take_schema(r, m1_json_get(value, "json_schema"));
	if (m1_json_is_text(type, "json_object"))
		return add_text(r, "json_schema", m1_slice_of("{\"type\": \"object\"}"), "minimax_m1.json_text");
	return m1_json_is_text(type, "text") || refuse(r, "response_format is not understood",
												   "Its type is text, json_object, or json_schema with a json_schema "
												   "that has a schema.");
}

/* Tokens of reasoning. The model was released with budgets of 40,000 and 80,000. */
static bool
take_effort(reading *r, const m1_json *value)
{
	static const struct
	{
		const char *effort, *budget;
	} efforts[] = {{"none", "0"},		{"minimal", "512"}, {"low", "2048"},
				   {"medium", "16384"}, {"high", "40000"},	{"xhigh", "80000"}};

	for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
		if (m1_json_is_text(value, efforts[i].effort))
			return add_text(r, "thinking_budget", m1_slice_of(efforts[i].budget), "int");
	return refuse(r, "reasoning_effort is not known", "It is none, minimal, low, medium, high or xhigh.");
}

static bool
take_stream(reading *r, const m1_json *value)
{
	if (!m1_json_is_boolean(value))
		return refuse(r, "stream is to be true or false", NULL);
	r->options->streams = m1_json_is(value, M1_JSON_TRUE);
	return true;
}

static bool
take_stream_options(reading *r, const m1_json *value)
{
	static const char *const keys[] = {"include_usage", "include_obfuscation", NULL};
	const m1_json *with_usage = m1_json_get(value, "include_usage");

	if (!m1_json_is(value, M1_JSON_OBJECT))
		return refuse(r, "stream_options is to be an object", NULL);
	if (m1_json_other_key(value, keys) != NULL)
		return refuse(r, "stream_options has an unknown key", m1_json_other_key(value, keys));
	if (with_usage != NULL && !m1_json_is(with_usage, M1_JSON_NULL) && !m1_json_is_boolean(with_usage))
		return refuse(r, "include_usage is to be true or false", NULL);
	if (!r->statement->by_row)
		return refuse(r, "stream_options is of streams only", "Say \"stream\": true.");
	r->options->with_usage = m1_json_is(with_usage, M1_JSON_TRUE);
	return true;
}

/* Only what is so anyhow. */
static bool
take_parallel(reading *r, const m1_json *value)
{
	return m1_json_is(value, M1_JSON_TRUE) || refuse(r, "parallel_tool_calls cannot be switched off",
													 "tool_choice with the name of a tool gives one call.");
}

static bool
take_store(reading *r, const m1_json *value)
{
	return m1_json_is(value, M1_JSON_FALSE) || refuse(r, "nothing is stored here", NULL);
}

/* Which there has to be: see put_model. */
static bool
take_model(reading *r, const m1_json *value)
{
	return m1_json_is(value, M1_JSON_STRING) || refuse(r, "model is to be a string", NULL);
}

static bool
pass_over(reading *r, const m1_json *value)
{
	(void) r;
	(void) value;
	return true;
}

/* ---- all keys ---- */

static const struct key
{
	const char *name;
	const char *argument; /* of complete; NULL: the same */
	const char *type;	  /* of a text, number or truth value; NULL: of any JSON, unless there is a function */
	bool (*take)(reading *r, const m1_json *value);
} keys[] = {
	{"messages", NULL, NULL, NULL},
	{"tools", NULL, NULL, NULL},
	{"max_completion_tokens", "max_tokens", "int", NULL},
	{"max_tokens", "max_tokens", "int", NULL},
	{"temperature", NULL, "float8", NULL},
	{"top_p", NULL, "float8", NULL},
	{"top_k", NULL, "int", NULL},
	{"seed", NULL, "bigint", NULL},
	{"thinking_budget", NULL, "int", NULL},
	{"logprobs", NULL, "boolean", NULL},
	{"top_logprobs", NULL, "int", NULL},
	{"n", NULL, "int", NULL},
	{"presence_penalty", NULL, "float8", NULL},
	{"frequency_penalty", NULL, "float8", NULL},
	{"logit_bias", NULL, NULL, NULL},
	{"stop", NULL, NULL, take_stop},
	{"tool_choice", NULL, NULL, take_tool_choice},
	{"response_format", NULL, NULL, take_response_format},
	{"reasoning_effort", "thinking_budget", NULL, take_effort},
	{"stream", NULL, NULL, take_stream},
	{"stream_options", NULL, NULL, take_stream_options},
	{"parallel_tool_calls", NULL, NULL, take_parallel},
	{"store", NULL, NULL, take_store},
	{"model", NULL, NULL, take_model},
	/* which change no answer here */
	{"user", NULL, NULL, pass_over},
	{"safety_identifier", NULL, NULL, pass_over},
	{"metadata", NULL, NULL, pass_over},
	{"prompt_cache_key", NULL, NULL, pass_over},
	{"service_tier", NULL, NULL, pass_over},
};

static const struct key *
find_key(const char *name)
{
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static const char *
argument_of(const struct key *key)
{
	return key->argument == NULL ? key->name : key->argument;
}

/* null, an empty array and an empty object are what clients write for nothing. */
static bool
says_nothing(const m1_json *value)
{
	return m1_json_is(value, M1_JSON_NULL) ||
		   ((m1_json_is(value, M1_JSON_ARRAY) || m1_json_is(value, M1_JSON_OBJECT)) && m1_json_size(value) == 0);
}

/* max_completion_tokens goes before its older name. */
static bool
is_outdone(const m1_json *body, const char *name)
{
	return strcmp(name, "max_tokens") == 0 && m1_json_is(m1_json_get(body, "max_completion_tokens"), M1_JSON_NUMBER);
}

/* The key in front of this one that says the same in other words; or NULL. */
static const char *
twin_of(const m1_json *body, const struct key *key)
{
	m1_json_foreach (body, value)
	{
		const struct key *other = find_key(m1_json_key(value));

		if (other == key)
			break;
		if (other != NULL && !says_nothing(value) && !is_outdone(body, other->name) &&
			strcmp(argument_of(other), argument_of(key)) == 0)
			return other->name;
	}
	return NULL;
}

static bool
take_key(reading *r, const m1_json *body, const char *name, const m1_json *value)
{
	const struct key *key = find_key(name);
	const char *argument;
	char message[160];

	if (key == NULL)
	{
		snprintf(message, sizeof message, "\"%.100s\" is not supported", name);
		return refuse(r, message, NULL);
	}
	if (twin_of(body, key) != NULL)
	{
		snprintf(message, sizeof message, "\"%s\" says anew what \"%s\" says", name, twin_of(body, key));
		return refuse(r, message, NULL);
	}
	argument = argument_of(key);
	if (key->take != NULL)
		return key->take(r, value);
	if (key->type == NULL)
		return add_json(r, argument, value);
	if (m1_json_is_boolean(value))
		return add_text(r, argument, m1_slice_of(m1_json_is(value, M1_JSON_TRUE) ? "true" : "false"), key->type);
	if (m1_json_is(value, M1_JSON_NUMBER))
		return add_text(r, argument, (m1_slice){value->text, value->n}, key->type);
	return refuse(r, "the value is of another type", NULL);
}

static bool
take_keys(reading *r, const m1_json *body, const char **param)
{
	m1_json_foreach (body, value)
	{
		*param = m1_json_key(value);
		if (strcmp(*param, "messages") != 0 && says_nothing(value))
			continue;
		if (is_outdone(body, *param))
			continue;
		if (!take_key(r, body, *param, value))
			return false;
	}
	*param = NULL;
	return true;
}

/* A name that is not the model's gives no row; while there is none, complete waits for it. */
static void
put_model(gw_statement *s, const m1_json *model)
{
	gw_sql(s, "minimax_m1.model");
	if (!m1_json_is(model, M1_JSON_STRING))
		return;
	gw_sql(s, " WHERE state <> 'ready' OR name = ");
	gw_sql_value(s, m1_json_text(model), "text");
}

bool
gw_chat_read(const m1_json *body, gw_statement *s, gw_chat_options *options, gw_failure *failure, const char **param)
{
	reading r = {s, options, failure};

	*param = NULL;
	if (!m1_json_is(body, M1_JSON_OBJECT))
		return refuse(&r, "the body is to be an object", NULL);
	*param = "messages";
	if (!m1_json_is(m1_json_get(body, "messages"), M1_JSON_ARRAY))
		return refuse(&r, "messages is to be an array", NULL);
	s->by_row = m1_json_is(m1_json_get(body, "stream"), M1_JSON_TRUE);
	gw_sql(s, s->by_row ? "SELECT (s).channel, (s).delta, NULL, NULL, "
						: "SELECT NULL, NULL, (s).content, (s).reasoning, ");
	gw_sql(s, "(s).tool_calls, (s).finish_reason, (s).prompt_tokens, (s).cached_tokens, (s).reasoning_tokens, "
			  "(s).completion_tokens, (s).model, (s).logprobs, (s).queue_ms + (s).prefill_ms FROM (SELECT ");
	gw_sql(s, s->by_row ? "minimax_m1.complete_stream(" : "minimax_m1.complete(");
	if (!take_keys(&r, body, param))
		return false;
	gw_sql(s, ") AS s FROM ");
	put_model(s, m1_json_get(body, "model"));
	gw_sql(s, " OFFSET 0) t");
	return true;
}
